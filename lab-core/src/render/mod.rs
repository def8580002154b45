//! Answers as text for people and JSON for programs. Computes nothing.

mod check;
pub mod diff;
pub mod edits;
mod matrix;
pub mod plan;
mod policy;
pub mod predictions;
mod reach;
mod repair;
mod show;
mod trace;

pub use check::comparisons;
pub use matrix::{matrix, matrix_markdown};
pub use policy::policy;
pub use reach::reach;
pub use repair::repair;
pub use show::summary;
pub use trace::trace;

/// Whether a character steers a terminal, or hides or reorders text.
fn harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text from a snapshot made harmless for a terminal: control characters are
/// escaped, among them those that hide or reorder text.
pub fn safe(text: &str) -> String {
    text.chars().flat_map(|c| if harmful(c) { c.escape_unicode().collect() } else { vec![c] }).collect()
}

/// JSON text made harmless for a terminal, its value unchanged: what JSON
/// lets stand in strings, and terminals heed, is escaped as JSON does.
///
/// ```
/// use lab_core::render::safe_json;
/// assert_eq!(safe_json("\"\u{9b}1A\"\n"), "\"\\u009b1A\"\n");
/// ```
pub fn safe_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Newlines stand between tokens; every other one is in a string, and
        // all are of the basic plane.
        if harmful(c) && c != '\n' {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}
