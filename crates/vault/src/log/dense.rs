//! The dense packs of a machine as logs of one pack each, for who looks at packs log by log.
//! docs/formats/fold.md, "Dense packs".

use std::collections::BTreeMap;

use futures::TryStreamExt;
use tidegate_model::{LogName, Name};

use super::{LogError, LogReader, Survey};
use crate::layout;

impl LogReader {
    /// The dense packs of a machine that are there, whether anything names them or not.
    ///
    /// # Errors
    /// [`LogError::Store`].
    pub(crate) async fn dense_surveys(
        &self,
        machine: &Name,
    ) -> Result<BTreeMap<LogName, Survey>, LogError> {
        let mut surveys = BTreeMap::new();
        let mut listed = self.store().list(&layout::dense(machine), None);
        while let Some(object) = listed.try_next().await? {
            if let Some((log, number)) = layout::parse_dense(machine, &object.path) {
                let stored = BTreeMap::from([(number.0, object.bytes)]);
                surveys.insert(log.clone(), Survey::of(log, number, stored));
            }
        }
        Ok(surveys)
    }
}
