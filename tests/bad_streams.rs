//! What isn't the protocol, on a server's port and on an agent's way: plain HTTP, garbage before,
//! within and behind TLS, a machine that speaks for another. Who sent it is told why it ends, as
//! far as it can be told; the server serves on, and what it has stays good.

mod support;

use std::io::{Read, Write};

use support::peer::{self, refusal_in};
use support::process::Server;
use support::random::Rng;
use support::refusals::{LIMIT, vault_of};
use support::site::Site;
use support::tls;
use tidegate_model::Epoch;
use tidegate_wire::http::{SWITCHING, request};
use tidegate_wire::{Refusal, RefusalCode};

const MIB: u64 = 1 << 20;

/// A server, and the identity of a machine that has sent a disk to it.
struct Scene {
    site: Site,
    server: Server,
    disk: std::path::PathBuf,
    identity: std::path::PathBuf,
}

impl Scene {
    #[track_caller]
    fn new() -> Self {
        let site = Site::with_vault();
        let disk = site.disk("db", MIB);
        let identity = site.enroll("db", "machine");
        let server = site.serve();
        let scene = Self { site, server, disk, identity };
        scene.copies();
        scene
    }

    #[track_caller]
    fn copies(&self) {
        self.site.agent(&self.server.at(), "db", &[&self.disk]).run().success();
    }

    /// The server still serves, and what it has is good.
    #[track_caller]
    fn assert_well(self) {
        let mut health = tls::client(self.server.address, None);
        let text = tls::text(&mut health, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        self.copies();
        self.server.stop().success();
        self.site.assert_recovers("db", 0, &self.disk);
        self.site.verify();
    }

    /// What the server says to one who was let in, with `bytes` behind the request.
    #[track_caller]
    fn refusal_of(&self, bytes: &[u8]) -> Refusal {
        let mut client = tls::client(self.server.address, Some(&self.identity));
        let answer = tls::answer(&mut client, &[&request("test"), bytes].concat());
        refusal_in(answer.strip_prefix(SWITCHING).expect("it was let in"))
    }
}

fn garbage(seed: u64, bytes: usize) -> Vec<u8> {
    let mut garbage = vec![0; bytes];
    Rng::new(seed).fill(&mut garbage);
    garbage
}

#[test]
fn plain_http_is_told_to_use_tls_and_garbage_harms_nobody() {
    let scene = Scene::new();
    let address = scene.server.address;
    let asked = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let text = tls::text(&mut tls::plain(address), asked);
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert!(text.contains("This port speaks TLS") && text.contains("https://"), "{text}");

    for seed in 0..8 {
        let mut socket = tls::plain(address);
        let bytes = garbage(seed, 100 << seed);
        // A server that has heard enough closes before all is sent: that is no failure.
        let _ = socket.write_all(&bytes).and_then(|()| socket.shutdown(std::net::Shutdown::Write));
        let mut heard = Vec::new();
        if socket.read_to_end(&mut heard).is_ok() {
            assert!(heard.len() < 1000, "an alert, or a few words: {heard:?}");
        }
    }
    // One that says nothing at all holds up nobody.
    let silent = tls::plain(address);
    scene.assert_well();
    drop(silent);
}

#[test]
fn garbage_within_tls_is_answered_in_http() {
    let scene = Scene::new();
    for identity in [None, Some(scene.identity.as_path())] {
        let mut cases: Vec<(Vec<u8>, &str)> = vec![
            (b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec(), "400"),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "404"),
            (b"DELETE /replicate HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "405"),
            (b"GET /replicate HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "426"),
        ];
        // Its first byte is none that a method can begin with.
        cases.push(([&[0xff], garbage(1, 1000).as_slice()].concat(), "400"));
        cases.push(([b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 8192]].concat(), "431"));
        for (bytes, status) in cases {
            let text = tls::text(&mut tls::client(scene.server.address, identity), &bytes);
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {text}");
            let (_, words) = text.split_once("\r\n\r\n").expect("a head and a body");
            assert!(words.len() > 20, "it says why: {text}");
        }
    }
    scene.assert_well();
}

#[test]
fn garbage_after_a_valid_upgrade_and_a_hello_for_another_are_refused_in_words() {
    let scene = Scene::new();
    let ours = vault_of(&scene.identity);
    let refusal = scene.refusal_of(&garbage(2, 1000));
    assert_eq!(refusal.code, RefusalCode::Protocol, "{refusal}");
    assert!(refusal.cause.contains("can't be understood"), "{refusal}");
    assert!(!refusal.advice.is_empty(), "{refusal}");

    let refusal = scene.refusal_of(&peer::first_frame(&ours, "another"));
    assert_eq!(refusal.code, RefusalCode::Identity, "{refusal}");
    assert!(refusal.cause.contains("machine db, not of another"), "{refusal}");
    assert!(refusal.advice.contains("identity that was issued"), "{refusal}");

    let other = "0".repeat(ours.len());
    let refusal = scene.refusal_of(&peer::first_frame(&other, "db"));
    assert_eq!(refusal.code, RefusalCode::Vault, "{refusal}");
    assert!(refusal.cause.contains(&ours) && refusal.cause.contains(&other), "{refusal}");

    let machines = scene.site.call(&["machines"]).json();
    assert_eq!(machines.as_array().map(Vec::len), Some(1), "{machines}");
    scene.assert_well();
}

#[test]
fn garbage_within_a_session_ends_it_in_words_and_harms_no_point() {
    let scene = Scene::new();
    let point = scene.site.last_point("db");
    let hello = peer::first_frame(&vault_of(&scene.identity), "db");
    for seed in 0..4 {
        let mut client = tls::client(scene.server.address, Some(&scene.identity));
        client.write_all(&[request("test"), hello.clone()].concat()).unwrap();
        let welcome = peer::welcome(&mut client);
        assert!(welcome.epoch > Epoch(1), "{welcome:?}");
        let answer = tls::answer(&mut client, &garbage(seed, 2000));
        let refusal = refusal_in(&answer);
        assert_eq!(refusal.code, RefusalCode::Protocol, "{refusal}");
        assert!(refusal.cause.contains("can't be understood"), "{refusal}");
    }
    assert_eq!(scene.site.last_point("db"), point, "nothing came of it");
    scene.assert_well();
}

#[test]
fn a_refusal_reaches_who_is_still_sending() {
    let scene = Scene::new();
    let hello = peer::first_frame(&vault_of(&scene.identity), "db");
    // Far more than sockets hold: the server has said its last word long before all of it is there.
    // If it closed then, the rest would be answered with a reset, and that overtakes the word.
    let flood = garbage(5, 16 << 20);
    for _ in 0..8 {
        let mut client = tls::client(scene.server.address, Some(&scene.identity));
        client.write_all(&[request("test"), hello.clone()].concat()).unwrap();
        peer::welcome(&mut client);
        let refusal = refusal_in(&tls::answer(&mut client, &flood));
        assert_eq!(refusal.code, RefusalCode::Protocol, "{refusal}");
    }
    scene.assert_well();
}

#[test]
fn an_agent_that_comes_again_ends_its_last_connection() {
    let scene = Scene::new();
    let hello = [request("test"), peer::first_frame(&vault_of(&scene.identity), "db")].concat();
    let mut last: Option<tls::Client> = None;
    for _ in 0..4 {
        let mut client = tls::client(scene.server.address, Some(&scene.identity));
        client.write_all(&hello).unwrap();
        if let Some(mut last) = last.take() {
            let refusal = refusal_in(&tls::answer(&mut last, &[]));
            assert_eq!(refusal.code, RefusalCode::TakenOver, "{refusal}");
        }
        peer::welcome(&mut client);
        last = Some(client);
    }
    drop(last);
    scene.assert_well();
}

#[test]
fn an_agent_tells_what_is_no_tidegate_server() {
    let site = Site::with_vault();
    let disk = site.disk("db", MIB);
    site.enroll("db", "machine");
    let server = site.enroll("ps-1", "server");
    let cases: [(std::net::SocketAddr, &[&str]); 4] = [
        (
            tls::plain_server(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            &["doesn't speak TLS", "check that it is a Tidegate server's port"],
        ),
        (tls::plain_server(b"SSH-2.0-OpenSSH_9.9\r\n"), &["doesn't speak TLS"]),
        (
            tls::server(&server, b"HTTP/1.1 404 Not Found\r\n\r\nno such page"),
            &["refused with status 404", "no such page"],
        ),
        (
            tls::server(&server, b"220 mail.example ESMTP\r\n"),
            &["isn't one of a Tidegate server", "220 mail.example", "check the address"],
        ),
    ];
    for (address, words) in cases {
        let address = address.to_string();
        let call = site.agent(&address, "db", &[&disk]).limit(LIMIT);
        let output = call.run().failure().says(&[&address]).says(words);
        assert_eq!(output.status.code(), Some(2), "it doesn't pass by itself:\n{output}");
    }
}
