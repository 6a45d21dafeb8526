//! What cargo says about the workspace: its packages, what each asks for and what it got.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// Every package that a build on any platform could take in.
pub struct Workspace {
    pub root: PathBuf,
    pub packages: Vec<Package>,
}

#[derive(Debug, Clone, Default)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub licence: Option<String>,
    /// Where it came from; none for a path.
    pub source: Option<String>,
    /// Whether it belongs to this workspace.
    pub member: bool,
    pub dependencies: Vec<Dependency>,
}

/// What a package asks for.
#[derive(Debug, Clone, Default)]
pub struct Dependency {
    pub name: String,
    pub kind: Kind,
    /// The version that it got; none if this platform doesn't need it.
    pub version: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    #[default]
    Normal,
    Build,
    Dev,
}

impl Workspace {
    /// Asks cargo, without the network.
    #[track_caller]
    pub fn load() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--locked", "--offline", "--format-version", "1"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "run `cargo fetch --locked` first: {said}");
        let value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
        Self::read(&value)
    }

    fn read(value: &Value) -> Self {
        let members: Vec<_> = list(value, "workspace_members").iter().map(text).collect();
        let packages = list(value, "packages");
        let version_of = |id: &str| {
            packages
                .iter()
                .find(|package| text(&package["id"]) == id)
                .map(|package| (text(&package["name"]), text(&package["version"])))
        };
        let nodes = list(&value["resolve"], "nodes");
        let read = |package: &Value| {
            let id = text(&package["id"]);
            let node = nodes.iter().find(|node| text(&node["id"]) == id);
            let got: Vec<_> = node
                .map(|node| list(node, "deps"))
                .unwrap_or_default()
                .iter()
                .filter_map(|dep| version_of(&text(&dep["pkg"])))
                .collect();
            Package {
                name: text(&package["name"]),
                version: text(&package["version"]),
                licence: package["license"].as_str().map(str::to_owned),
                source: package["source"].as_str().map(str::to_owned),
                member: members.contains(&id),
                dependencies: list(package, "dependencies")
                    .iter()
                    .map(|dependency| read_dependency(dependency, &got))
                    .collect(),
            }
        };
        Self {
            root: PathBuf::from(text(&value["workspace_root"])),
            packages: packages.iter().map(read).collect(),
        }
    }

    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.member)
    }
}

fn read_dependency(value: &Value, got: &[(String, String)]) -> Dependency {
    let name = text(&value["name"]);
    let kind = match value["kind"].as_str() {
        Some("dev") => Kind::Dev,
        Some("build") => Kind::Build,
        _ => Kind::Normal,
    };
    let version = got.iter().find(|(of, _)| *of == name).map(|(_, version)| version.clone());
    Dependency { name, kind, version }
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A member of a made-up workspace.
pub fn member(name: &str, dependencies: &[(&str, Kind)]) -> Package {
    let dependencies = dependencies.iter().map(|&(name, kind)| Dependency {
        name: name.to_owned(),
        kind,
        version: Some("1.0.0".to_owned()),
    });
    Package {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        licence: Some("Apache-2.0".to_owned()),
        source: None,
        member: true,
        dependencies: dependencies.collect(),
    }
}

/// A made-up workspace.
pub fn workspace(packages: Vec<Package>) -> Workspace {
    Workspace { root: PathBuf::from("/"), packages }
}

#[test]
fn what_cargo_prints_is_read() {
    let printed = serde_json::json!({
        "workspace_root": "/r", "workspace_members": ["ours"],
        "packages": [
            {"id": "ours", "name": "a", "version": "1.0.0", "license": null, "source": null,
             "dependencies": [{"name": "b", "kind": null}, {"name": "c", "kind": "dev"}]},
            {"id": "other", "name": "b", "version": "2.1.0", "license": "MIT", "source": "registry+x",
             "dependencies": []}],
        "resolve": {"nodes": [{"id": "ours", "deps": [{"pkg": "other"}]}, {"id": "other", "deps": []}]}
    });
    let workspace = Workspace::read(&printed);
    let [ours, other] = workspace.packages.as_slice() else { panic!("two packages") };
    assert!(ours.member && !other.member);
    assert_eq!(ours.dependencies[0].version.as_deref(), Some("2.1.0"));
    assert_eq!((ours.dependencies[1].kind, &ours.dependencies[1].version), (Kind::Dev, &None));
    assert_eq!(other.licence.as_deref(), Some("MIT"));
}
