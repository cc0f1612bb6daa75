//! placeholder until merge
use crate::config::ListenAddr;
/// Demo.
pub fn demo(_: ListenAddr, _: Option<ListenAddr>) -> anyhow::Result<()> {
    anyhow::bail!("later")
}
