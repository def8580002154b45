//! A file of rules by itself, as the tool that prints them wrote it.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::folder::{text_of, LARGEST};
use super::Error;
use crate::addr::Family;
use crate::formats::{iptables, nft_json, nft_text};
use crate::model::Ruleset;

/// Reads what `iptables-save`, `ip6tables-save`, `nft list ruleset` or `nft -j
/// list ruleset` printed. The file tells which: by what it begins with, and by
/// the header of a save, without which it is IPv4's.
///
/// # Errors
/// [`Error::Io`] for a file that cannot be read, [`Error::Refused`] for one
/// that is too large, [`Error::Format`] with file, line and text for what
/// does not follow its format.
pub fn read_rules(path: &Path) -> Result<Ruleset, Error> {
    let shown = path.display().to_string();
    let io = |source| Error::Io { path: shown.clone(), source };
    // A pipe is as good as a file: no size is asked for beforehand.
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(io)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::Refused { path: shown, why: format!("more than {LARGEST} bytes") });
    }
    let text = text_of(bytes, &shown)?;
    let mut lines = text.lines().map(str::trim_start).filter(|l| !l.is_empty());
    let six = lines.clone().next().is_some_and(|l| l.starts_with('#') && l.contains("ip6tables-save"));
    let family = if six { Family::Ipv6 } else { Family::Ipv4 };
    let tables = match lines.find(|l| !l.starts_with('#')).unwrap_or_default() {
        line if line.starts_with(['{', '[']) => nft_json::parse(&shown, &text)?,
        line if line.starts_with("table ") => nft_text::parse(&shown, &text)?,
        _ => iptables::parse(&shown, text, family)?,
    };
    Ok(Ruleset { tables })
}
