//! Who may import whom (docs/ARCHITECTURE.md): the crates of the workspace among each other, and
//! the dependencies that have a home.

use crate::metadata::{Kind, Package, Workspace};

/// A crate and the crates of the workspace that it may import. The program may import all.
const CRATES: &[(&str, &[&str])] = &[
    ("tidegate-model", &[]),
    ("tidegate-floor", &[]),
    ("tidegate-memory", &[]),
    ("tidegate-wire", &["tidegate-model"]),
    ("tidegate-hrl", &["tidegate-model"]),
    ("tidegate-nbd", &["tidegate-model"]),
    ("tidegate-vault", &["tidegate-model"]),
    ("tidegate-pipeline", &["tidegate-memory", "tidegate-model", "tidegate-vault"]),
    ("tidegate-agent", &["tidegate-model", "tidegate-wire", "tidegate-hrl", "tidegate-nbd"]),
    (
        "tidegate-fuzz",
        &["tidegate-hrl", "tidegate-model", "tidegate-nbd", "tidegate-vault", "tidegate-wire"],
    ),
    ("tidegate-control", &["tidegate-model", "tidegate-vault"]),
];

const PROGRAM: &str = "tidegate";

/// Dependencies that only these may have; tests may use them anywhere.
const HOMES: &[(&str, &[&str])] = &[
    ("glommio", &[PROGRAM]),
    ("clap", &[PROGRAM]),
    ("httparse", &[PROGRAM]),
    ("indicatif", &[PROGRAM]),
    ("object_store", &["tidegate-vault"]),
    ("argon2", &["tidegate-vault"]),
    ("aes-gcm", &["tidegate-vault"]),
    ("aws-lc-rs", &["tidegate-vault", "tidegate-floor"]),
    ("io-uring", &[PROGRAM, "tidegate-agent", "tidegate-hrl", "tidegate-vault"]),
    ("rustls", &[PROGRAM, "tidegate-agent", "tidegate-control", "tidegate-floor"]),
    ("tokio-rustls", &[PROGRAM, "tidegate-agent", "tidegate-control"]),
    ("socket2", &[PROGRAM, "tidegate-agent", "tidegate-control"]),
    ("zstd", &["tidegate-pipeline", "tidegate-vault", "tidegate-floor"]),
];

/// Crates that decide and don't wait. The journal (tidegate-hrl) and NBD (tidegate-nbd) wait in their
/// shells alone, which sources.rs holds.
const PURE: &[&str] = &["tidegate-model", "tidegate-wire", "tidegate-pipeline"];

/// What waits: executors, sockets, files, devices. Not for pure crates.
const WAITING: &[&str] =
    &["async-trait", "futures", "tokio", "rustix", "libc", "mio", "reqwest", "tempfile"];

pub fn complaints(workspace: &Workspace) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in workspace.members() {
        among_crates(workspace, package, &mut complaints);
        homes(package, &mut complaints);
    }
    complaints
}

fn among_crates(workspace: &Workspace, package: &Package, complaints: &mut Vec<String>) {
    if package.name == PROGRAM {
        return;
    }
    let Some((_, may)) = CRATES.iter().find(|(name, _)| *name == package.name) else {
        complaints.push(format!(
            "{} isn't known: write into tests/workspace_rules/imports.rs what it may import, and \
             into docs/ARCHITECTURE.md why it is a crate",
            package.name
        ));
        return;
    };
    let ours = |name: &str| workspace.members().any(|member| member.name == name);
    for dependency in package.dependencies.iter().filter(|dependency| ours(&dependency.name)) {
        if !may.contains(&dependency.name.as_str()) {
            complaints.push(format!(
                "{} imports {}, which it may not: move what both need down (see \"Who may import \
                 whom\" in docs/ARCHITECTURE.md)",
                package.name, dependency.name
            ));
        }
    }
}

fn homes(package: &Package, complaints: &mut Vec<String>) {
    let name = package.name.as_str();
    for dependency in package.dependencies.iter().filter(|d| d.kind != Kind::Dev) {
        let home = HOMES.iter().find(|(of, _)| *of == dependency.name);
        if let Some((_, homes)) = home.filter(|(_, homes)| !homes.contains(&name)) {
            complaints.push(format!(
                "{name} depends on {}, whose home is {}: do it there, or pass it in",
                dependency.name,
                homes.join(", ")
            ));
        } else if PURE.contains(&name) && WAITING.contains(&dependency.name.as_str()) {
            complaints.push(format!(
                "{name} depends on {}, but it only decides and never waits: take what it needs as \
                 a parameter",
                dependency.name
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{member, workspace};
    use crate::{none, one};

    fn of(name: &str, dependency: &str, kind: Kind) -> Vec<String> {
        let mut packages = vec![member(name, &[(dependency, kind)])];
        if dependency.starts_with(PROGRAM) {
            packages.push(member(dependency, &[]));
        }
        complaints(&workspace(packages))
    }

    #[test]
    fn an_import_upwards_is_found() {
        one(&of("tidegate-agent", "tidegate-vault", Kind::Normal), "imports tidegate-vault");
        one(&of("tidegate-model", "tidegate-wire", Kind::Dev), "imports tidegate-wire");
        one(&of("tidegate-nbd", "tidegate-wire", Kind::Normal), "imports tidegate-wire");
        one(&of("tidegate-vault", "tidegate-pipeline", Kind::Build), "may not");
        none(&of("tidegate-agent", "tidegate-wire", Kind::Normal));
        none(&of("tidegate", "tidegate-agent", Kind::Normal));
    }

    #[test]
    fn an_unknown_crate_is_found() {
        one(&of("tidegate-utils", "serde", Kind::Normal), "isn't known");
    }

    #[test]
    fn a_dependency_away_from_home_is_found_but_for_tests() {
        one(&of("tidegate-agent", "glommio", Kind::Normal), "whose home is tidegate");
        one(&of("tidegate", "object_store", Kind::Normal), "whose home is tidegate-vault");
        one(&of("tidegate-wire", "tokio", Kind::Normal), "never waits");
        one(&of("tidegate-wire", "rustix", Kind::Normal), "never waits");
        none(&of("tidegate-wire", "tokio", Kind::Dev));
        none(&of("tidegate", "object_store", Kind::Dev));
    }
}
