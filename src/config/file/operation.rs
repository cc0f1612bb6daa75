//! Pure: the sections about changing, draining and ending a relay that runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::scalar::Span;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ReloadSection {
    /// How often to look whether the file has changed. "0s": never; SIGHUP reads it all the same.
    #[schemars(extend("x-maximum" = "1day"))]
    pub(in crate::config) watch: Span,
    /// Where a change needs a restart: true applies the others, false applies none.
    pub(in crate::config) partial: bool,
}

impl Default for ReloadSection {
    fn default() -> Self {
        Self { watch: Span::secs(0), partial: true }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct DrainSection {
    /// How long clients are still accepted after /ready has said no: load balancers notice late.
    #[schemars(extend("x-maximum" = "1h"))]
    pub(in crate::config) delay: Span,
    /// Sessions are told to go one by one over so long, so that they do not all come back at once. No longer than shutdown_timeout.
    #[schemars(extend("x-maximum" = "1h"))]
    pub(in crate::config) spread: Span,
}

impl Default for DrainSection {
    fn default() -> Self {
        Self { delay: Span::secs(0), spread: Span::secs(10) }
    }
}
