//! A way through the tokens of one rule or set.

use super::lexer::{Kind, Token};

/// How deep brackets and expressions may be nested; nft itself goes less deep.
const DEEPEST: u32 = 16;

/// What is not understood: the reader keeps the text then.
#[derive(Debug)]
pub(super) struct Unread;

pub(super) type Read<T> = Result<T, Unread>;

/// A place in some tokens without comments and ends of lines.
#[derive(Clone)]
pub(super) struct Cursor<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
    depth: u32,
}

impl<'t, 'a> Cursor<'t, 'a> {
    pub fn new(tokens: &'t [Token<'a>]) -> Self {
        Cursor { tokens, at: 0, depth: 0 }
    }

    /// How many tokens are behind.
    pub fn place(&self) -> usize {
        self.at
    }

    pub fn peek(&self) -> Option<&'t Token<'a>> {
        self.tokens.get(self.at)
    }

    pub fn done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    pub fn next(&mut self) -> Read<&'t Token<'a>> {
        let token = self.tokens.get(self.at).ok_or(Unread)?;
        self.at += 1;
        Ok(token)
    }

    /// The next token's text, if it is an unquoted word.
    pub fn word(&self) -> Option<&'a str> {
        self.peek().filter(|token| token.kind == Kind::Word).map(|token| token.text)
    }

    pub fn is(&self, mark: &str) -> bool {
        self.peek().is_some_and(|token| token.is(mark))
    }

    /// Passes an operator or bracket, if it is next.
    pub fn eat(&mut self, mark: &str) -> bool {
        let found = self.is(mark);
        self.at += usize::from(found);
        found
    }

    /// Passes a word, if it is next.
    pub fn eat_word(&mut self, word: &str) -> bool {
        let found = self.word() == Some(word);
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, mark: &str) -> Read<()> {
        self.eat(mark).then_some(()).ok_or(Unread)
    }

    pub fn expect_word(&mut self, word: &str) -> Read<()> {
        self.eat_word(word).then_some(()).ok_or(Unread)
    }

    /// An unquoted word.
    pub fn take_word(&mut self) -> Read<&'a str> {
        let word = self.word().ok_or(Unread)?;
        self.at += 1;
        Ok(word)
    }

    /// A name, quoted or not.
    pub fn take_name(&mut self) -> Read<&'a str> {
        let token = self.next()?;
        match token.kind {
            Kind::Word | Kind::Quoted => Ok(token.text),
            Kind::Mark | Kind::Newline | Kind::Comment => Err(Unread),
        }
    }

    pub fn take_number(&mut self) -> Read<u64> {
        number(self.take_word()?).ok_or(Unread)
    }

    /// Words with commas between them.
    pub fn take_list(&mut self) -> Read<Vec<&'a str>> {
        let mut words = vec![self.take_name()?];
        while self.eat(",") {
            words.push(self.take_name()?);
        }
        Ok(words)
    }

    /// Passes everything between braces, which must be next.
    pub fn skip_braces(&mut self) -> Read<()> {
        self.expect("{")?;
        let mut open = 1_u32;
        while open > 0 {
            let token = self.next()?;
            open = open + u32::from(token.is("{")) - u32::from(token.is("}"));
        }
        Ok(())
    }

    /// Reads something that may hold something of its own kind.
    pub fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth >= DEEPEST {
            return Err(Unread);
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }
}

/// A number as nft writes it: decimal or `0x…`.
pub(super) fn number(word: &str) -> Option<u64> {
    let digits = |word: &str| word.bytes().next().is_some_and(|b| b.is_ascii_hexdigit());
    match word.strip_prefix("0x") {
        Some(hex) if digits(hex) => u64::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None => word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse().ok()).flatten(),
    }
}

/// A time such as `1d2h3m4s5ms`, in whole seconds.
pub(super) fn seconds(word: &str) -> Option<u64> {
    let mut milliseconds = 0_u64;
    if word.is_empty() {
        return None;
    }
    let mut rest = word;
    while !rest.is_empty() {
        let digits = rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
        let count: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit = rest.bytes().position(|b| b.is_ascii_digit()).unwrap_or(rest.len());
        let factor = match rest.get(..unit)? {
            "w" => 7 * 86_400_000,
            "d" => 86_400_000,
            "h" => 3_600_000,
            "m" => 60_000,
            "s" | "" => 1000,
            "ms" => 1,
            _ => return None,
        };
        milliseconds = milliseconds.checked_add(count.checked_mul(factor)?)?;
        rest = rest.get(unit..)?;
    }
    Some(milliseconds / 1000)
}
