//! Answers as text for people and JSON for programs. Computes nothing.

mod check;
pub mod predictions;
mod show;
mod trace;

pub use check::comparisons;
pub use show::summary;
pub use trace::trace;

/// Text from a snapshot made harmless for a terminal: control characters are
/// escaped, among them those that hide or reorder text.
pub fn safe(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().flat_map(|c| if hidden(c) { c.escape_unicode().collect() } else { vec![c] }).collect()
}
