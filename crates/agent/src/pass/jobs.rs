//! What goes on in QEMU for a while: jobs, exports, its NBD server. Each is waited for, with a limit.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_nbd::serve::Address;

use super::qmp::{Qmp, QmpError};

/// How long something may take to end.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// Makes an image, and waits until it is there.
pub(super) fn create(qmp: &mut Qmp, job: &str, options: &Value) -> Result<(), QmpError> {
    qmp.execute("blockdev-create", &json!({ "job-id": job, "options": options }))?;
    wait(qmp, "an image", |qmp| {
        Ok(find(qmp, job)?.is_none_or(|found| found["status"] == "concluded"))
    })?;
    let error = find(qmp, job)?.and_then(|found| found["error"].as_str().map(str::to_owned));
    qmp.try_execute("job-dismiss", &json!({ "id": job }))?;
    error.map_or(Ok(()), |error| Err(qmp.state(format!("no image can be made: {error}"))))
}

/// Ends a job, if there is one.
pub(super) fn end(qmp: &mut Qmp, job: &str) -> Result<(), QmpError> {
    wait(qmp, "the end of a job", |qmp| {
        let Some(found) = find(qmp, job)? else { return Ok(true) };
        // Which of the two it takes depends on how far it is.
        let how = if found["status"] == "concluded" { "job-dismiss" } else { "job-cancel" };
        qmp.try_execute(how, &json!({ "id": job }))?;
        Ok(false)
    })
}

/// What a job is doing, if there is one.
pub(super) fn status(qmp: &mut Qmp, job: &str) -> Result<Option<String>, QmpError> {
    Ok(find(qmp, job)?.and_then(|found| found["status"].as_str().map(str::to_owned)))
}

/// Ends an export with its clients, if there is one.
pub(super) fn end_export(qmp: &mut Qmp, id: &str) -> Result<(), QmpError> {
    qmp.try_execute("block-export-del", &json!({ "id": id, "mode": "hard" }))?;
    wait(qmp, "the end of an export", |qmp| {
        let exports = qmp.execute("query-block-exports", &json!({}))?;
        Ok(named(&exports, id).is_none())
    })
}

/// Sees that QEMU serves NBD. One that serves already is taken to do so there.
pub(super) fn serve(qmp: &mut Qmp, address: &Address) -> Result<(), QmpError> {
    let address = match address {
        Address::Unix(path) => json!({ "type": "unix", "data": { "path": path } }),
        Address::Tcp(tcp) => {
            let (host, port) = (tcp.ip().to_string(), tcp.port().to_string());
            json!({ "type": "inet", "data": { "host": host, "port": port } })
        }
    };
    qmp.try_execute("nbd-server-start", &json!({ "addr": address }))?;
    Ok(())
}

fn find(qmp: &mut Qmp, job: &str) -> Result<Option<Value>, QmpError> {
    let jobs = qmp.execute("query-jobs", &json!({}))?;
    Ok(named(&jobs, job).cloned())
}

fn named<'a>(all: &'a Value, id: &str) -> Option<&'a Value> {
    all.as_array().into_iter().flatten().find(|one| one["id"] == id)
}

fn wait(
    qmp: &mut Qmp,
    what: &str,
    mut reached: impl FnMut(&mut Qmp) -> Result<bool, QmpError>,
) -> Result<(), QmpError> {
    let until = Instant::now() + LIMIT;
    while !reached(qmp)? {
        if Instant::now() >= until {
            return Err(qmp.state(format!("{what} doesn't come within {} s", LIMIT.as_secs())));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
