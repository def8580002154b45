//! `nft list ruleset`: native nf_tables rule sets, as people paste them.
//!
//! The text is read into the same objects that `nft -j list ruleset` prints,
//! and these by [`nft_json`]: there is one meaning for both.

mod block;
mod cursor;
mod expression;
mod lexer;
mod statement;
#[cfg(test)]
mod tests;
mod value;

use super::{json, nft_json, Error};
use crate::model::Table;

/// Reads the tables, in the order listed. A statement that is not understood
/// stays in its rule as not modelled, with its text and that of what follows
/// it in the rule, for nothing tells where it ends; objects other than tables,
/// chains, sets, maps and rules stay with their table.
///
/// The text of a rule is its line without its comment and what its counters
/// counted: these are in [`Rule`](crate::model::Rule).
///
/// ```
/// use lab_core::formats::nft_text;
/// let text = "table inet fw {
///     chain input {
///         type filter hook input priority filter; policy drop;
///         ct state established,related counter packets 7 bytes 420 accept
///     }
/// }
/// ";
/// let tables = nft_text::parse("nft.txt", text)?;
/// let rule = &tables[0].chains[0].rules[0];
/// assert_eq!(rule.text, "ct state established,related counter accept");
/// assert_eq!((rule.counters, rule.origin.line), (Some((7, 420)), 4));
/// # Ok::<(), lab_core::formats::Error>(())
/// ```
///
/// # Errors
///
/// Text that is cut short or is not nft's, a name that leads nowhere or is
/// given twice, or chains that jump in a circle.
pub fn parse(file: &str, text: &str) -> Result<Vec<Table>, Error> {
    json::guard(file, text)?;
    let tokens = lexer::tokens(file, text)?;
    let objects = block::Blocks::new(file, text, &tokens).read()?;
    nft_json::read(&objects).map_err(|error| {
        // What is shown is the line as it stands, not how it would be as JSON.
        let line = text.lines().nth(error.line.saturating_sub(1) as usize).unwrap_or_default();
        Error::new(file, error.line, line, error.kind)
    })
}
