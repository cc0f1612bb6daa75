//! What would a configuration change in a relay that runs? The relay itself is asked, over /admin.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::timeout;

use super::health::{Place, ask};
use crate::config::{Change, Effect, Loaded, View};
use crate::tls::Trust;

/// For the whole question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where a relay is asked.
const PATH: &str = "/admin/config/compare";

/// Asks the relay whose /admin answers at `url` what `new` would change. `token` is what it wants to be shown. Secrets go there as
/// digests under a key that is made for this question.
///
/// # Errors
/// It does not answer in time, or not to this; without the token.
pub fn changes_against(url: &str, token: Option<&SecretString>, new: &Loaded) -> anyhow::Result<Vec<Change>> {
    let place = Place::of(url).filter(|place| place.path.trim_end_matches('/').is_empty() || bare(url) || place.path == "/admin");
    let place = place.ok_or_else(|| anyhow!("{url}: an address of /admin like http://127.0.0.1:8081 is wanted"))?;
    let nonce = format!("{:032x}", rand::random::<u128>());
    let body = serde_json::to_string(&View::new(new, &nonce))?;
    let shown = token.map(|token| format!("Authorization: Bearer {}\r\n", token.expose_secret())).unwrap_or_default();
    let question = format!(
        "POST {PATH} HTTP/1.0\r\nHost: {}\r\n{shown}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        place.authority,
        body.len()
    );
    let asked = actix_rt::System::new().block_on(async { timeout(PATIENCE, ask(&place, &Trust::System, &question)).await });
    let (code, answer) = asked
        .unwrap_or_else(|_| Err(anyhow!("nothing within {PATIENCE:?}")))
        .with_context(|| format!("{url} does not answer"))?;
    let answer: Value =
        serde_json::from_str(&answer).with_context(|| format!("{url} answers {code}, and no JSON: no relay's /admin?"))?;
    if code != 200 {
        bail!("{url} answers {code}: {}", answer["error"].as_str().unwrap_or("without a reason"));
    }
    let rows = answer["changes"].as_array().with_context(|| format!("{url} does not say what changes"))?;
    rows.iter().map(|row| change(row).with_context(|| format!("{url} says what is not understood: {row}"))).collect()
}

/// Whether the URL names no path: [`Place`] means /health then.
fn bare(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'))
}

fn change(row: &Value) -> Option<Change> {
    let word = |key: &str| row.get(key)?.as_str().map(str::to_owned);
    Some(Change { path: word("path")?, effect: Effect::of(&word("effect")?)?, text: word("text")? })
}
