//! Who goes on with an epoch that isn't the newest.

use super::*;

#[test]
fn an_older_epoch_goes_on_only_in_the_run_that_is_under_way() {
    run(async {
        let vault = TestVault::new();
        let log = TestLog::new(&vault, 1);
        let ask = async |incarnation, claimed, byte| {
            let token = Token::from_bytes([byte; 16]);
            let request = GrantRequest { token, ..request(&log, incarnation, claimed) };
            grant(&vault.reader(), &request).await
        };
        assert_eq!(ask(5, 0, 1).await.unwrap().epoch, Epoch(1));
        assert_eq!(ask(6, 0, 2).await.unwrap().epoch, Epoch(2));
        // Its connection broke, and it is there again.
        assert_eq!(ask(5, 1, 1).await.unwrap().epoch, Epoch(1));
        // It was started again: with its folder as it was once, perhaps, and its disks as they are now.
        let refused = ask(5, 1, 3).await.unwrap_err();
        assert!(matches!(refused, GrantError::Superseded { epoch: Epoch(1), .. }), "{refused}");
        assert_eq!(sessions(&vault).await.len(), 1, "nothing is left of it");
        // The newest goes on in any run.
        assert_eq!(ask(6, 2, 4).await.unwrap().epoch, Epoch(2));
    });
}
