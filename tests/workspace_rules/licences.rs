//! Under which licences dependencies may come: expressions of SPDX, against a list.

use spdx::{Expression, Licensee, ParseMode};

use crate::metadata::{Package, Workspace};

/// What may go into a program under Apache-2.0 that is handed on as a binary.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Single packages under other licences, and why that is right.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("bitmaps", "MPL-2.0", "glommio needs it; copyleft by file, and we change none of its files"),
    ("libfuzzer-sys", "NCSA", "the fuzzer's loop, of LLVM; no part of the program"),
];

pub fn complaints(workspace: &Workspace) -> Vec<String> {
    workspace.packages.iter().filter_map(complaint).collect()
}

fn complaint(package: &Package) -> Option<String> {
    let name = format!("{} {}", package.name, package.version);
    let Some(licence) = &package.licence else {
        return Some(format!("{name} states no licence: replace it"));
    };
    // Lax, because older packages write `MIT/Apache-2.0`.
    let Ok(expression) = Expression::parse_mode(licence, ParseMode::LAX) else {
        return Some(format!("{name} states '{licence}', which is no SPDX expression: replace it"));
    };
    let exceptions = EXCEPTIONS.iter().filter(|(of, ..)| *of == package.name);
    let allowed: Vec<Licensee> = ALLOWED
        .iter()
        .copied()
        .chain(exceptions.map(|(_, licence, _)| *licence))
        .map(|licence| Licensee::parse(licence).expect("our own list is of SPDX licences"))
        .collect();
    let fits =
        expression.evaluate(|wanted| allowed.iter().any(|licence| licence.satisfies(wanted)));
    (!fits).then(|| {
        format!(
            "{name} is under '{licence}', which isn't on the list: replace it, or if a lawyer would \
             agree add it to tests/workspace_rules/licences.rs"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{none, one};

    fn of(name: &str, licence: Option<&str>) -> Vec<String> {
        let licence = licence.map(str::to_owned);
        let package = Package { name: name.to_owned(), licence, ..Package::default() };
        complaint(&package).into_iter().collect()
    }

    #[test]
    fn a_choice_needs_one_allowed_licence_and_a_sum_needs_all() {
        none(&of("x", Some("GPL-3.0-only OR MIT")));
        none(&of("x", Some("MIT/Apache-2.0")));
        none(&of("x", Some("(MIT OR GPL-2.0-only) AND Unicode-3.0")));
        none(&of("x", Some("Apache-2.0 WITH LLVM-exception")));
        one(&of("x", Some("GPL-3.0-only AND MIT")), "isn't on the list");
        one(&of("x", Some("AGPL-3.0-or-later")), "isn't on the list");
    }

    #[test]
    fn an_exception_is_for_its_package_only() {
        none(&of("bitmaps", Some("MPL-2.0+")));
        one(&of("x", Some("MPL-2.0+")), "isn't on the list");
    }

    #[test]
    fn a_missing_or_unreadable_licence_is_found() {
        one(&of("x", None), "states no licence");
        one(&of("x", Some("ask me")), "no SPDX expression");
    }
}
