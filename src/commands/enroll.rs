//! `tidegate enroll`: issues an identity.

use std::time::Duration;

use serde::Serialize;
use tidegate_model::Counted;
use tidegate_vault::authority::Enrolment;
use tidegate_vault::identity::Role;
use tidegate_vault::store::Access;

use crate::cli::{EnrollArgs, RoleArg};
use crate::failure::Failure;
use crate::output::Output;

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Serialize)]
struct Enrolled {
    name: String,
    role: String,
    vault: String,
    days: u32,
    identity: String,
}

pub(super) async fn run(args: EnrollArgs, output: Output) -> Result<(), Failure> {
    let vault = super::open_at(&args.vault.vault, &args.vault.credential, Access::Read).await?;
    let role = match args.role {
        RoleArg::Machine => Role::Machine,
        RoleArg::Server => Role::Server,
    };
    let enrolment =
        Enrolment { name: args.name.clone(), role, validity: DAY * args.days, names: Vec::new() };
    let identity = vault.authority()?.issue(&enrolment, super::now())?;
    identity.write(&args.out, args.force)?;
    let enrolled = Enrolled {
        name: args.name.to_string(),
        role: role.to_string(),
        vault: vault.id().to_string(),
        days: args.days,
        identity: args.out.display().to_string(),
    };
    output.result(&enrolled, |enrolled| {
        format!(
            "{} {} is enrolled for {}; its identity is in {} (it holds a private key)",
            enrolled.role,
            enrolled.name,
            Counted(enrolled.days, "day"),
            enrolled.identity
        )
    })
}
