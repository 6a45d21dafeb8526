//! Where dependencies come from, and in how many versions.

use std::collections::{BTreeMap, BTreeSet};

use crate::metadata::Workspace;

/// Second versions of what we depend on ourselves, which others bring: package, version's
/// beginning, and who. Each costs build time and has its own bugs, so a new one is a decision.
const TOLERATED: &[(&str, &str, &str)] = &[
    ("getrandom", "0.2.", "ring, and it the store client"),
    ("signal-hook", "0.3.", "glommio"),
    ("socket2", "0.4.", "glommio"),
];

pub fn complaints(workspace: &Workspace) -> Vec<String> {
    let mut complaints = from_elsewhere(workspace);
    complaints.extend(several_versions(workspace));
    complaints
}

fn from_elsewhere(workspace: &Workspace) -> Vec<String> {
    let elsewhere = workspace.packages.iter().filter(|package| {
        let registry =
            package.source.as_ref().is_some_and(|source| source.starts_with("registry+"));
        !package.member && !registry
    });
    elsewhere
        .map(|package| {
            format!(
                "{} {} comes from {}: take it from the registry, or make it part of the workspace",
                package.name,
                package.version,
                package.source.as_deref().unwrap_or("a path outside the workspace")
            )
        })
        .collect()
}

fn several_versions(workspace: &Workspace) -> Vec<String> {
    let mut ours: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for dependency in workspace.members().flat_map(|member| &member.dependencies) {
        let versions = ours.entry(&dependency.name).or_default();
        versions.extend(dependency.version.as_deref());
    }
    let mut complaints = Vec::new();
    for (name, used) in ours {
        if used.len() > 1 {
            complaints.push(format!(
                "crates of the workspace use {name} in versions {used:?}: name it once, in the \
                 workspace's table, and take it by `workspace = true`"
            ));
        }
        let others = workspace.packages.iter().filter(|package| {
            package.name == name
                && !used.contains(package.version.as_str())
                && !TOLERATED.iter().any(|(tolerated, version, _)| {
                    package.name == *tolerated && package.version.starts_with(version)
                })
        });
        complaints.extend(others.map(|package| {
            format!(
                "{name} is there as {} too, besides {used:?} that we use: bring the versions \
                 together (`cargo tree -i {name}@{}` says who wants it), or tolerate it in \
                 tests/workspace_rules/origins.rs with who needs it",
                package.version, package.version
            )
        }));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Kind, Package, member, workspace};
    use crate::{none, one};

    fn foreign(name: &str, version: &str, source: Option<&str>) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            source: source.map(str::to_owned),
            ..Package::default()
        }
    }

    #[test]
    fn a_dependency_from_git_or_a_path_is_found() {
        let registry = Some("registry+index");
        none(&complaints(&workspace(vec![foreign("x", "1.0.0", registry)])));
        let git = foreign("x", "1.0.0", Some("git+ssh://somewhere"));
        one(&complaints(&workspace(vec![git])), "comes from git+ssh");
        one(&complaints(&workspace(vec![foreign("x", "1.0.0", None)])), "outside the workspace");
    }

    #[test]
    fn two_versions_in_our_own_crates_are_found() {
        let mut other = member("b", &[("x", Kind::Normal)]);
        other.dependencies[0].version = Some("2.0.0".to_owned());
        let packages = vec![member("a", &[("x", Kind::Dev)]), other];
        one(&complaints(&workspace(packages)), "in versions");
    }

    #[test]
    fn a_second_version_that_others_bring_is_found_unless_tolerated() {
        let registry = Some("registry+index");
        let with = |name: &str, version: &str| {
            let packages = vec![
                member("a", &[(name, Kind::Normal)]),
                foreign(name, "1.0.0", registry),
                foreign(name, version, registry),
            ];
            complaints(&workspace(packages))
        };
        one(&with("x", "0.9.0"), "is there as 0.9.0 too");
        one(&with("socket2", "0.5.1"), "is there as 0.5.1 too");
        none(&with("socket2", "0.4.9"));
    }
}
