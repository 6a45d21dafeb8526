//! The rules of the workspace that no compiler holds: who imports whom, where dependencies come
//! from and under which licences, one version of each, and what every source file looks like.
//!
//! Each rule is a function from what it reads to a list of complaints, and is tested twice: on this
//! workspace, where it must have none, and on made-up input that breaks it. A complaint says what
//! to do.

mod files;
mod imports;
mod licences;
mod metadata;
mod origins;
mod sources;

use metadata::Workspace;

/// Fails with all complaints at once, one a line.
#[track_caller]
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n  {}", complaints.join("\n  "));
}

/// Fails unless there is exactly one complaint and it holds `part`.
#[track_caller]
fn one(complaints: &[String], part: &str) {
    let [complaint] = complaints else { panic!("one complaint expected, not {complaints:#?}") };
    assert!(complaint.contains(part), "'{complaint}' doesn't hold '{part}'");
}

#[test]
fn crates_import_only_what_they_may() {
    let workspace = Workspace::load();
    none(&imports::complaints(&workspace));
    none(&sources::complaints(&files::sources(&workspace.root)));
}

#[test]
fn dependencies_come_from_the_registry_in_one_version_each() {
    none(&origins::complaints(&Workspace::load()));
}

#[test]
fn licences_are_on_the_list() {
    let workspace = Workspace::load();
    assert!(workspace.packages.len() > 50, "that isn't all that is compiled");
    none(&licences::complaints(&workspace));
}

#[test]
fn files_say_what_they_are_for_stay_short_and_name_no_machine() {
    let workspace = Workspace::load();
    let all = files::all(&workspace.root);
    assert!(all.len() > 50, "that isn't all of the repository");
    none(&files::complaints(&workspace.root, &all));
}
