//! Sockets in the file system: whose they are, and who may have their paths.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use tidegate_nbd::CommandKind;
use tidegate_nbd::serve::{Address, ServeError, ServeSettings, Server};

use super::{Client, Gate, PATIENCE, offer};

fn start(path: &Path) -> Result<Server, ServeError> {
    let address = Address::Unix(path.to_owned());
    Server::start(&address, vec![offer(&Arc::new(Gate::default()))], ServeSettings::default())
}

fn names(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_socket_is_its_users_alone_and_gone_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = start(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    server.stop(PATIENCE);
    assert_eq!(names(folder.path()), 0);
    // What somebody else put there meanwhile stays.
    let server = start(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"theirs").unwrap();
    drop(server);
    assert_eq!((names(folder.path()), std::fs::read(&path).unwrap()), (1, b"theirs".to_vec()));
}

#[test]
fn the_socket_of_a_living_server_is_refused_and_that_of_a_dead_one_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = start(&path).unwrap();
    let error = start(&path).unwrap_err();
    assert!(matches!(error, ServeError::InUse(_)), "{error}");
    let mut client = Client::agree(server.address());
    client.ask(CommandKind::Flush, 1, 0, 0);
    assert_eq!(client.reply(), (1, None));
    server.stop(PATIENCE);
    // Of another program: it locks nothing.
    let theirs = UnixListener::bind(&path).unwrap();
    let error = start(&path).unwrap_err();
    assert!(matches!(error, ServeError::InUse(_)), "{error}");
    assert_eq!(names(folder.path()), 1, "no lock is left behind");
    drop(theirs);
    assert!(path.exists(), "a dead server leaves its socket");
    let server = start(&path).unwrap();
    Client::agree(server.address());
}

#[test]
fn what_is_no_socket_is_not_replaced_and_a_long_path_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, b"theirs").unwrap();
    let error = start(&path).unwrap_err();
    assert!(matches!(error, ServeError::NotASocket(_)), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
    let error = start(&folder.path().join("x".repeat(120))).unwrap_err();
    assert!(matches!(error, ServeError::Listen { .. }), "{error}");
}

#[test]
fn of_many_servers_that_start_at_once_one_has_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    for _ in 0..100 {
        // One that is dead was there before.
        drop(UnixListener::bind(&path).unwrap());
        let started: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| start(&path))).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert_eq!(started.iter().filter(|server| server.is_ok()).count(), 1);
        let server = started.into_iter().find_map(Result::ok).unwrap();
        Client::agree(server.address());
    }
    assert_eq!(names(folder.path()), 0);
}

#[test]
fn a_path_that_another_server_is_about_to_take_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    let lock = std::fs::File::create(folder.path().join("socket.lock")).unwrap();
    lock.lock().unwrap();
    let error = start(&path).unwrap_err();
    assert!(matches!(error, ServeError::InUse(_)), "{error}");
    assert!(path.exists(), "it is the other's to replace");
    drop(lock);
    start(&path).unwrap();
}
