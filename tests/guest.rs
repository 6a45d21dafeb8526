//! A guest boots from a mounted recovery point, before anything of it is copied, and what it writes is
//! there when it boots again; the point stays as it is.

mod support;

use support::guest::Guest;
use support::random::Rng;
use support::site::{Site, shown};

#[test]
fn a_guest_boots_from_a_mounted_point_writes_and_boots_again() {
    let Some(guest) = Guest::usable("a_guest_boots_from_a_mounted_point_writes_and_boots_again")
    else {
        return;
    };
    let site = Site::with_vault();
    let mut data = vec![0; 5 << 20];
    Rng::new(7).fill(&mut data);
    let disk = site.path("root.img");
    guest.disk(&disk, &site.path("staging"), &data);
    site.replicate("vm", &[&disk]).run().success();
    let sum = support::tool(std::process::Command::new("sha256sum").arg(site.path("staging/data")));
    let up = format!("GUEST: up from its disk, {}  /data", &sum[..64]);

    let overlay = site.path("overlay");
    let options = ["--overlay", shown(&overlay)];
    for boot in 0..2 {
        let mounted = site.mounted("vm", &options);
        let said = guest.run(&mounted.uri("0"), &site.path("."));
        assert!(said.contains(&up) && said.contains("GUEST: done"), "{said}");
        assert!(!said.contains("GUEST: no") && !said.contains("GUEST: read-only"), "{said}");
        assert_eq!(said.contains("GUEST: found what a guest wrote"), boot > 0, "{said}");
        // As if the host of the mount had lost it, after the guest's own sync.
        mounted.kill();
    }
    site.assert_recovers("vm", 0, &disk);
}
