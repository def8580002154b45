//! Tables, and what stands in them.

use serde_json::{json, Map, Value};

use super::super::json::Fields;
use super::super::nft_json::{Object, Part, Source};
use super::super::{Error, ErrorKind};
use super::cursor::{number, seconds, Cursor, Read, Unread};
use super::expression::expression;
use super::lexer::{folded, Kind, Token};
use super::statement::{rate, statement};
use super::value::elements;

/// Objects of a table whose insides no engine needs.
const KEPT: [&str; 6] = ["counter", "quota", "limit", "synproxy", "flowtable", "secmark"];

/// One line of a block: up to the end of the line or a semicolon outside of
/// braces.
struct Line<'a> {
    tokens: Vec<Token<'a>>,
    comment: Option<&'a str>,
}

impl Line<'_> {
    fn first(&self) -> &str {
        self.tokens.first().filter(|token| token.kind == Kind::Word).map_or("", |token| token.text)
    }

    fn text(&self, whole: &str) -> String {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => folded(whole, first.start, last.end),
            _ => String::new(),
        }
    }
}

/// The number in `# handle 5`.
fn handle(comment: Option<&str>) -> Option<u64> {
    number(comment?.strip_prefix("handle ")?.trim())
}

/// Reads the tables of a text as the objects that `nft -j` would list.
pub(super) struct Blocks<'t, 'a> {
    file: &'a str,
    text: &'a str,
    tokens: &'t [Token<'a>],
    at: usize,
    objects: Vec<Object<'a>>,
}

impl<'t, 'a> Blocks<'t, 'a> {
    pub fn new(file: &'a str, text: &'a str, tokens: &'t [Token<'a>]) -> Self {
        Blocks { file, text, tokens, at: 0, objects: Vec::new() }
    }

    fn peek(&self) -> Option<&'t Token<'a>> {
        self.tokens.get(self.at)
    }

    fn error(&self, message: &str) -> Error {
        let token = self.peek().or(self.tokens.last());
        let line = token.map_or(1, |token| token.line);
        let shown = self.text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default();
        let kind = match self.peek() {
            Some(_) => ErrorKind::Syntax(message.to_owned()),
            None => ErrorKind::Truncated(message.to_owned()),
        };
        Error::new(self.file, line, shown, kind)
    }

    /// Passes ends of lines, semicolons and comments.
    fn skip(&mut self) {
        let empty = |token: &Token<'_>| matches!(token.kind, Kind::Newline | Kind::Comment) || token.is(";");
        while self.peek().is_some_and(empty) {
            self.at += 1;
        }
    }

    fn name(&mut self) -> Result<&'a str, Error> {
        match self.peek() {
            Some(token) if matches!(token.kind, Kind::Word | Kind::Quoted) => {
                self.at += 1;
                Ok(token.text)
            }
            _ => Err(self.error("a name is expected here")),
        }
    }

    /// Passes a brace that opens a block; gives the handle told behind it.
    fn open(&mut self) -> Result<Option<u64>, Error> {
        if !self.peek().is_some_and(|token| token.is("{")) {
            return Err(self.error("`{` is expected here"));
        }
        self.at += 1;
        Ok(handle(self.peek().filter(|token| token.kind == Kind::Comment).map(|token| token.text)))
    }

    /// The next line of a block; none at its end, which is passed.
    fn line(&mut self) -> Result<Option<Line<'a>>, Error> {
        self.skip();
        let mut line = Line { tokens: Vec::new(), comment: None };
        let mut open = 0_u32;
        loop {
            let Some(token) = self.peek() else { return Err(self.error("a `{` is not closed")) };
            match token.kind {
                Kind::Newline if open == 0 => break,
                Kind::Comment => line.comment = line.comment.or(Some(token.text)),
                Kind::Newline => {}
                Kind::Mark if token.is(";") && open == 0 => break,
                Kind::Mark if token.is("}") && open == 0 => {
                    if line.tokens.is_empty() {
                        self.at += 1;
                        return Ok(None);
                    }
                    break;
                }
                Kind::Mark | Kind::Word | Kind::Quoted => {
                    open = open + u32::from(token.is("{")) - u32::from(token.is("}"));
                    line.tokens.push(*token);
                }
            }
            self.at += 1;
        }
        Ok(Some(line))
    }

    fn push(&mut self, sort: &str, line: u32, map: Map<String, Value>, source: Source) {
        let fields = Fields { file: self.file, line, map };
        self.objects.push(Object { sort: sort.to_owned(), fields, source: Some(source) });
    }

    /// Everything from a token to the last that was passed.
    fn since(&self, start: usize) -> String {
        let end = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(0, |token| token.end);
        self.text.get(start..end).unwrap_or_default().to_owned()
    }

    /// Reads every table.
    pub fn read(mut self) -> Result<Vec<Object<'a>>, Error> {
        loop {
            self.skip();
            let Some(token) = self.peek() else { return Ok(self.objects) };
            let next = self.tokens.get(self.at + 1);
            if token.word("flush") && next.is_some_and(|token| token.word("ruleset")) {
                // As it stands at the head of a saved rule set.
                self.at += 2;
            } else if token.word("table") {
                self.at += 1;
                self.table(token)?;
            } else {
                return Err(self.error("a table is expected here"));
            }
        }
    }

    fn table(&mut self, first: &Token<'a>) -> Result<(), Error> {
        let mut name = self.name()?;
        let mut family = "ip";
        if self.peek().is_some_and(|token| !token.is("{")) {
            family = name;
            name = self.name()?;
        }
        let mut home = Map::new();
        home.insert("family".to_owned(), family.into());
        let mut fields = home.clone();
        home.insert("table".to_owned(), name.into());
        fields.insert("name".to_owned(), name.into());
        fields.extend(self.open()?.map(|handle| ("handle".to_owned(), handle.into())));
        let place = self.objects.len();
        self.push("table", first.line, fields, Source::of(format!("table {family} {name}")));
        loop {
            self.skip();
            let Some(token) = self.peek() else { return Err(self.error("a `{` is not closed")) };
            if token.is("}") {
                self.at += 1;
                return Ok(());
            }
            match token.text {
                "chain" => self.chain(&home)?,
                "set" | "map" => self.set(&home)?,
                "ct" => self.kept(&home, 2)?,
                sort if KEPT.contains(&sort) => self.kept(&home, 1)?,
                "comment" | "flags" => {
                    let Some(line) = self.line()? else { return Ok(()) };
                    if line.first() == "flags" {
                        let words = line.tokens.iter().skip(1).filter(|token| !token.is(","));
                        let words: Vec<Value> = words.map(|token| token.text.into()).collect();
                        let text = line.text(self.text);
                        if let Some(table) = self.objects.get_mut(place) {
                            table.fields.map.insert("flags".to_owned(), words.into());
                            table.source = Some(Source::of(text));
                        }
                    }
                }
                _ => {
                    return Err(self.error("a chain, set, map or another object of a table is expected here"))
                }
            }
        }
    }

    /// The head of an object: its sort of so many words, its name, and `{`.
    fn head(
        &mut self,
        home: &Map<String, Value>,
        words: usize,
    ) -> Result<(String, Map<String, Value>, &'t Token<'a>), Error> {
        let Some(first) = self.peek() else { return Err(self.error("an object is expected here")) };
        let mut sort = self.name()?.to_owned();
        for _ in 1..words {
            sort = format!("{sort} {}", self.name()?);
        }
        let mut fields = home.clone();
        fields.insert("name".to_owned(), self.name()?.into());
        fields.extend(self.open()?.map(|handle| ("handle".to_owned(), handle.into())));
        Ok((sort, fields, first))
    }

    fn kept(&mut self, home: &Map<String, Value>, words: usize) -> Result<(), Error> {
        let (sort, fields, first) = self.head(home, words)?;
        while self.line()?.is_some() {}
        let text = self.since(first.start);
        self.push(&sort, first.line, fields, Source::of(text));
        Ok(())
    }

    fn set(&mut self, home: &Map<String, Value>) -> Result<(), Error> {
        let (sort, mut fields, first) = self.head(home, 1)?;
        while let Some(line) = self.line()? {
            let mut cursor = Cursor::new(&line.tokens);
            let told = set_line(&mut cursor, &mut fields);
            if told.is_err() || !cursor.done() {
                fields.insert(line.first().to_owned(), line.text(self.text).into());
                if line.first() == "elements" {
                    fields.shift_remove("elements");
                    fields.insert("elem".to_owned(), line.text(self.text).into());
                }
            }
        }
        let text = self.since(first.start);
        self.push(&sort, first.line, fields, Source::of(text));
        Ok(())
    }

    fn chain(&mut self, home: &Map<String, Value>) -> Result<(), Error> {
        let (_, mut fields, first) = self.head(home, 1)?;
        let name = fields.get("name").cloned().unwrap_or_default();
        let mut source = Source::of(format!("chain {}", name.as_str().unwrap_or_default()));
        let mut rules = Vec::new();
        while let Some(line) = self.line()? {
            let place = line.tokens.first().map_or(0, |token| token.line);
            let told = match line.first() {
                "type" => base(&mut Cursor::new(&line.tokens), &mut fields),
                "policy" => Cursor::new(&line.tokens[1..]).take_word().map(|word| {
                    fields.insert("policy".to_owned(), word.into());
                }),
                "comment" => Ok(()),
                _ => {
                    let mut told = home.clone();
                    told.insert("chain".to_owned(), name.clone());
                    told.extend(handle(line.comment).map(|handle| ("handle".to_owned(), handle.into())));
                    let source = rule(self.text, &line, &mut told);
                    rules.push((place, told, source));
                    Ok(())
                }
            };
            let text = line.text(self.text);
            if told.is_err() {
                return Err(Error::syntax(
                    self.file,
                    place,
                    &text,
                    "the head of a base chain is expected here",
                ));
            }
            if line.first() == "type" {
                source = Source::of(text);
            }
        }
        self.push("chain", first.line, fields, source);
        for (line, fields, source) in rules {
            self.push("rule", line, fields, source);
        }
        Ok(())
    }
}

/// `type filter hook forward priority filter - 5`.
fn base(cursor: &mut Cursor<'_, '_>, fields: &mut Map<String, Value>) -> Read<()> {
    cursor.expect_word("type")?;
    fields.insert("type".to_owned(), cursor.take_word()?.into());
    cursor.expect_word("hook")?;
    fields.insert("hook".to_owned(), cursor.take_word()?.into());
    if cursor.eat_word("device") {
        fields.insert("dev".to_owned(), cursor.take_name()?.into());
    } else if cursor.eat_word("devices") {
        cursor.expect("=")?;
        fields.insert("dev".to_owned(), elements(cursor)?);
    }
    cursor.expect_word("priority")?;
    let mut words = vec![cursor.take_word()?];
    while let Some(word) = cursor.word() {
        cursor.next()?;
        words.push(word);
    }
    fields.insert("prio".to_owned(), words.join(" ").into());
    cursor.done().then_some(()).ok_or(Unread)
}

/// `ipv4_addr . inet_service`.
fn types<'a>(cursor: &mut Cursor<'_, 'a>) -> Read<Vec<&'a str>> {
    let mut words = vec![cursor.take_word()?];
    while cursor.eat_word(".") {
        words.push(cursor.take_word()?);
    }
    Ok(words)
}

/// One line of a set or map.
fn set_line(cursor: &mut Cursor<'_, '_>, fields: &mut Map<String, Value>) -> Read<()> {
    let word = cursor.take_word()?;
    let value: Value = match word {
        "type" => {
            let words = types(cursor)?;
            if cursor.eat_word(":") {
                fields.insert("map".to_owned(), types(cursor)?.join(" . ").into());
            }
            words.into()
        }
        "typeof" => {
            let key = expression(cursor)?;
            if cursor.eat_word(":") {
                let data = if cursor.eat_word("verdict") {
                    "verdict".into()
                } else {
                    json!({ "typeof": expression(cursor)? })
                };
                fields.insert("map".to_owned(), data);
            }
            fields.insert("type".to_owned(), json!({ "typeof": key }));
            return Ok(());
        }
        "flags" => cursor.take_list()?.into(),
        "timeout" | "gc-interval" => seconds(cursor.take_word()?).ok_or(Unread)?.into(),
        "size" => cursor.take_number()?.into(),
        "policy" | "comment" => cursor.take_name()?.into(),
        "auto-merge" => true.into(),
        "elements" => {
            cursor.expect("=")?;
            fields.insert("elem".to_owned(), elements(cursor)?);
            return Ok(());
        }
        "counter" => {
            // What it counted is nobody's.
            super::statement::counted(cursor)?;
            let each = json!({ "counter": null });
            fields.insert("stmt".to_owned(), json!([each]));
            return Ok(());
        }
        "limit" => {
            cursor.expect_word("rate")?;
            let limit = rate(cursor)?;
            fields.insert("stmt".to_owned(), json!([{ "limit": limit }]));
            return Ok(());
        }
        _ => return Err(Unread),
    };
    fields.insert(word.to_owned(), value);
    Ok(())
}

/// The text of a rule without what its counters counted.
fn uncounted(text: &str, tokens: &[Token<'_>]) -> String {
    let (mut parts, mut from) = (Vec::new(), tokens.first().map_or(0, |token| token.start));
    for five in tokens.windows(5) {
        let [counter, packets, _, bytes, count] = five else { continue };
        if counter.word("counter") && packets.word("packets") && bytes.word("bytes") {
            parts.push(folded(text, from, counter.end));
            from = count.end;
        }
    }
    parts.push(folded(text, from, tokens.last().map_or(from, |token| token.end)));
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

/// Reads a rule: its statements as nft's JSON, and the text of each.
fn rule(text: &str, line: &Line<'_>, fields: &mut Map<String, Value>) -> Source {
    let mut tokens = line.tokens.as_slice();
    if let [rest @ .., word, comment] = tokens {
        if word.word("comment") && comment.kind == Kind::Quoted {
            fields.insert("comment".to_owned(), comment.text.into());
            tokens = rest;
        }
    }
    let mut source = Source::of(uncounted(text, tokens));
    let mut expressions = Vec::new();
    let mut cursor = Cursor::new(tokens);
    while !cursor.done() {
        let start = cursor.place();
        let read = statement(&mut cursor).ok().filter(|_| cursor.place() > start);
        let end = if read.is_some() { cursor.place() } else { tokens.len() };
        let part = &tokens[start..end];
        // What cannot be read hides where the next statement starts.
        let unread = match read {
            Some(_) => None,
            None => part.first().map(|token| token.text.to_owned()),
        };
        expressions.push(read.unwrap_or_default());
        let known = unread.is_none();
        source.parts.push(Part { text: uncounted(text, part), unread });
        if !known {
            break;
        }
    }
    // Extensions of iptables that nft cannot show are named in a comment.
    if let Some(name) = line.comment.and_then(|comment| comment.strip_prefix("xt_")) {
        expressions.push(Value::Null);
        let name = name.split_whitespace().next().unwrap_or(name).to_owned();
        source.parts.push(Part { text: format!("# xt_{name}"), unread: Some(name) });
    }
    fields.insert("expr".to_owned(), expressions.into());
    source
}
