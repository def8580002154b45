use std::collections::HashSet;

use super::super::ErrorKind;
use super::lexer::{written, Word};
use super::names;
use super::options::{self, BuiltIn, Spec, BUILT_IN};
use super::values;
use crate::addr::{Family, Masked};
use crate::model::{InterfacePattern, Not};

fn syntax<T>(message: impl Into<String>) -> Result<T, ErrorKind> {
    Err(ErrorKind::Syntax(message.into()))
}

/// An option of an extension, as given.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub name: &'static str,
    pub invert: bool,
    pub args: Vec<String>,
}

/// A match or target of a rule, and the words that it was written with.
#[derive(Clone, Debug)]
pub(super) struct Extension {
    /// Its name, an alias resolved.
    pub name: String,
    /// Whether it is a target.
    pub target: bool,
    /// Whether a protocol brought it in without `-m`.
    implied: bool,
    /// The options it may have; none: they are not known, and all that
    /// follows is kept as written.
    specs: Option<&'static [Spec]>,
    /// Its options, while all are known.
    pub options: Vec<Given>,
    head: Vec<usize>,
    words: Vec<usize>,
}

impl Extension {
    /// Whether all of its options are known.
    pub fn known(&self) -> bool {
        self.specs.is_some()
    }

    /// Its options as written.
    pub fn arguments(&self, line: &str, words: &[Word]) -> String {
        written(line, words, &self.words)
    }

    /// All of it as written, for a target without the `-j`.
    pub fn text(&self, line: &str, words: &[Word]) -> String {
        let all: Vec<usize> = self.head.iter().chain(&self.words).copied().collect();
        let text = written(line, words, &all);
        if self.implied {
            format!("-m {} {text}", self.name)
        } else if self.head.is_empty() {
            format!("{} {text}", self.name).trim_end().to_owned()
        } else {
            text
        }
    }
}

/// A rule as its options say, before extensions are understood.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    pub source: Option<Not<Vec<Masked>>>,
    pub destination: Option<Not<Vec<Masked>>>,
    pub input: Option<Not<InterfacePattern>>,
    pub output: Option<Not<InterfacePattern>>,
    pub protocol: Option<Not<u8>>,
    pub fragment: Option<Not<()>>,
    pub counters: Option<(u64, u64)>,
    /// The matches, in order, and the target where it was written.
    pub extensions: Vec<Extension>,
    /// The chain of `-g`.
    pub goto: Option<String>,
}

/// What an option's name leads to.
enum Found {
    BuiltIn(BuiltIn),
    Option(usize, Spec),
    Unknown,
}

/// Reads a rule's words from left to right, as getopt and iptables'
/// `do_command` do.
pub(super) struct Reader<'a> {
    pub words: &'a [Word<'a>],
    pub family: Family,
    pub chains: &'a HashSet<String>,
    at: usize,
    line: Line,
    /// The extension that takes in whatever comes, as its options are unknown.
    absorbing: Option<usize>,
}

impl<'a> Reader<'a> {
    pub fn new(words: &'a [Word], start: usize, family: Family, chains: &'a HashSet<String>) -> Self {
        Reader { words, family, chains, at: start, line: Line::default(), absorbing: None }
    }

    pub fn read(mut self) -> Result<Line, ErrorKind> {
        while let Some(first) = self.words.get(self.at) {
            let start = self.at;
            let invert = first.is_bang();
            let option = if invert { self.words.get(start + 1) } else { Some(first) };
            if let Some(extension) = self.absorbing {
                if !option.is_some_and(|o| !o.quoted && BuiltIn::exact(&o.text).is_some()) {
                    // One word only: a `!` may stand before another `!`.
                    self.absorb(extension, start);
                    self.at = start + 1;
                    continue;
                }
            }
            let Some(option) = option else {
                return syntax("`!` at the end of the rule");
            };
            if option.is_bang() {
                return syntax("`!` is given twice");
            }
            self.at = start + usize::from(invert) + 1;
            self.option(start, option, invert)?;
        }
        Ok(self.line)
    }

    fn absorb(&mut self, extension: usize, word: usize) {
        if let Some(extension) = self.line.extensions.get_mut(extension) {
            extension.words.push(word);
        }
    }

    fn option(&mut self, start: usize, word: &Word, invert: bool) -> Result<(), ErrorKind> {
        let text = word.text.as_ref();
        if !text.starts_with('-') || text.len() < 2 {
            return syntax(format!("unexpected argument `{text}`"));
        }
        let (name, attached) = split_option(text);
        match self.find(name) {
            Found::BuiltIn(option) => {
                self.absorbing = None;
                self.built_in(option, name, attached, invert)
            }
            Found::Option(index, spec) => self.known(start, index, spec, attached, invert),
            Found::Unknown => self.unknown(start, name),
        }
    }

    /// An option of an extension whose options are known.
    fn known(
        &mut self,
        start: usize,
        index: usize,
        spec: Spec,
        attached: Option<&str>,
        mut invert: bool,
    ) -> Result<(), ErrorKind> {
        let shown = format!("--{}", spec.name);
        let mut args = Vec::with_capacity(spec.arity);
        if spec.arity > 0 {
            if let Some(value) = attached {
                args.push(value.to_owned());
            } else {
                self.old_negation(&mut invert)?;
            }
            while args.len() < spec.arity {
                args.push(self.argument(&shown)?);
            }
        } else if attached.is_some() {
            return syntax(format!("{shown} takes no argument"));
        }
        if invert && !spec.invert {
            return syntax(format!("{shown} cannot be turned round with `!`"));
        }
        let taken = start..self.at;
        let Some(extension) = self.line.extensions.get_mut(index) else { return Ok(()) };
        if extension.options.iter().any(|o| o.name == spec.means) {
            return syntax(format!("--{} is given twice", spec.means));
        }
        extension.options.push(Given { name: spec.means, invert, args });
        extension.words.extend(taken);
        Ok(())
    }

    /// An option that nothing claims: the extension read last turns opaque.
    fn unknown(&mut self, start: usize, name: &str) -> Result<(), ErrorKind> {
        let opaque = self.line.extensions.iter().rposition(|e| !e.known());
        let last = self.line.extensions.iter().rposition(|e| !e.target || !is_verdict(e, self.chains));
        let Some(index) = opaque.or(last) else {
            return syntax(format!("unknown option `{name}`"));
        };
        if let Some(extension) = self.line.extensions.get_mut(index) {
            extension.specs = None;
            extension.words.extend(start..self.at);
        }
        self.absorbing = Some(index);
        Ok(())
    }

    /// Exact names come before abbreviations, and what the rule has named
    /// before what its protocol could bring in.
    fn find(&mut self, name: &str) -> Found {
        if let Some(option) = BuiltIn::exact(name) {
            if !name.starts_with("--") {
                return Found::BuiltIn(option);
            }
        }
        let Some(long) = name.strip_prefix("--") else { return Found::Unknown };
        let all = || {
            let specs = self.line.extensions.iter().enumerate().rev();
            specs.flat_map(|(i, e)| e.specs.unwrap_or_default().iter().map(move |s| (i, *s)))
        };
        if let Some((index, spec)) = all().find(|(_, s)| s.name == long) {
            return Found::Option(index, spec);
        }
        if let Some(option) = BuiltIn::exact(name) {
            return Found::BuiltIn(option);
        }
        let mut near = all().filter(|(_, s)| s.name.starts_with(long));
        let mut built_in = BUILT_IN.iter().filter(|(_, n, _)| n.starts_with(long)).map(|b| b.2);
        match (near.next(), built_in.next()) {
            (Some((index, spec)), None) if near.all(|(_, s)| s.means == spec.means) => {
                return Found::Option(index, spec)
            }
            (None, Some(option)) if built_in.all(|o| o == option) => return Found::BuiltIn(option),
            _ => {}
        }
        self.imply(long)
    }

    /// `-p tcp --dport 22` without `-m tcp`.
    fn imply(&mut self, long: &str) -> Found {
        let Some(Not { invert: false, value }) = self.line.protocol else { return Found::Unknown };
        let Some(name) = names::protocol_extension(value, self.family) else { return Found::Unknown };
        if self.line.extensions.iter().any(|e| !e.target && e.name == name) {
            return Found::Unknown;
        }
        let specs = options::of_match(name);
        let spec = specs.map(|specs| {
            let near = |s: &&Spec| s.name.starts_with(long);
            specs.iter().find(|s| s.name == long).or_else(|| specs.iter().find(near))
        });
        let index = self.line.extensions.len();
        match spec {
            // The protocol's options are known, and this is none of them.
            Some(None) => return Found::Unknown,
            // Not modelled: any option may be its own, unless something else
            // in the rule takes what it does not know.
            None if !self.line.extensions.iter().all(Extension::known) => return Found::Unknown,
            _ => {}
        }
        self.line.extensions.push(Extension {
            name: name.to_owned(),
            target: false,
            implied: true,
            specs,
            options: Vec::new(),
            head: Vec::new(),
            words: Vec::new(),
        });
        match spec.flatten() {
            Some(spec) => Found::Option(index, *spec),
            None => Found::Unknown,
        }
    }

    /// The next word, whatever it looks like.
    fn argument(&mut self, option: &str) -> Result<String, ErrorKind> {
        let Some(word) = self.words.get(self.at) else {
            return syntax(format!("{option} needs an argument"));
        };
        self.at += 1;
        Ok(word.text.clone().into_owned())
    }

    /// `-s ! 10.0.0.1`, as rules of iptables before 1.4 have it.
    fn old_negation(&mut self, invert: &mut bool) -> Result<(), ErrorKind> {
        if self.words.get(self.at).is_some_and(Word::is_bang) {
            if *invert {
                return syntax("`!` is given twice");
            }
            *invert = true;
            self.at += 1;
        }
        Ok(())
    }

    fn built_in(
        &mut self,
        option: BuiltIn,
        name: &str,
        attached: Option<&str>,
        mut invert: bool,
    ) -> Result<(), ErrorKind> {
        match option {
            BuiltIn::Fragment => {
                return once(&mut self.line.fragment, Not { invert, value: () }, name);
            }
            BuiltIn::OnlyFamily(family) if family == self.family && !invert => return Ok(()),
            BuiltIn::OnlyFamily(_) => {
                return syntax(format!("{name} has no place in rules of {}", self.family));
            }
            BuiltIn::Table => return syntax(format!("{name} has no place in a file of tables")),
            _ => {}
        }
        let head = self.at;
        let value = match attached {
            Some(value) => value.to_owned(),
            None => {
                self.old_negation(&mut invert)?;
                self.argument(name)?
            }
        };
        let family = self.family;
        match option {
            BuiltIn::Source => once(&mut self.line.source, addresses(&value, invert, family)?, name),
            BuiltIn::Destination => {
                once(&mut self.line.destination, addresses(&value, invert, family)?, name)
            }
            BuiltIn::InInterface => {
                once(&mut self.line.input, Not { invert, value: values::interface(&value)? }, name)
            }
            BuiltIn::OutInterface => {
                once(&mut self.line.output, Not { invert, value: values::interface(&value)? }, name)
            }
            BuiltIn::Protocol => {
                let number = values::protocol(&value)?;
                if number == 0 && invert {
                    return Err(ErrorKind::Value("the rule would match no protocol".into()));
                }
                once(&mut self.line.protocol, Not { invert, value: number }, name)
            }
            _ if invert => syntax(format!("{name} cannot be turned round with `!`")),
            BuiltIn::Counters => {
                let bytes = match value.split_once(',') {
                    Some(_) => None,
                    None => Some(self.argument(name)?),
                };
                let (packets, bytes) = match &bytes {
                    Some(bytes) => (value.as_str(), bytes.as_str()),
                    None => value.split_once(',').unwrap_or((&value, "")),
                };
                match (packets.parse(), bytes.parse()) {
                    (Ok(packets), Ok(bytes)) => once(&mut self.line.counters, (packets, bytes), name),
                    _ => Err(values::bad(&format!("{packets} {bytes}"), "a pair of counters")),
                }
            }
            BuiltIn::Goto => {
                self.no_target_yet(name)?;
                self.line.goto = Some(value);
                Ok(())
            }
            BuiltIn::Jump => {
                self.no_target_yet(name)?;
                let specs =
                    if self.chains.contains(&value) { Some(&[][..]) } else { options::of_target(&value) };
                // The model keeps a target's text without its `-j`.
                let head = if attached.is_some() { Vec::new() } else { vec![head] };
                self.push(value, true, specs, head);
                Ok(())
            }
            _ => {
                let canonical = options::canonical(&value, family).to_owned();
                let specs = options::of_match(&canonical);
                let head = if attached.is_some() { vec![head - 1] } else { vec![head - 1, head] };
                self.push(canonical, false, specs, head);
                Ok(())
            }
        }
    }

    fn push(&mut self, name: String, target: bool, specs: Option<&'static [Spec]>, head: Vec<usize>) {
        if specs.is_none() {
            self.absorbing = Some(self.line.extensions.len());
        }
        self.line.extensions.push(Extension {
            name,
            target,
            implied: false,
            specs,
            options: Vec::new(),
            head,
            words: Vec::new(),
        });
    }

    fn no_target_yet(&self, name: &str) -> Result<(), ErrorKind> {
        if self.line.goto.is_some() || self.line.extensions.iter().any(|e| e.target) {
            return syntax(format!("{name}: the rule already has a target"));
        }
        Ok(())
    }
}

/// Whether a target is a chain or a plain verdict, which have no options.
fn is_verdict(extension: &Extension, chains: &HashSet<String>) -> bool {
    matches!(extension.name.as_str(), "ACCEPT" | "DROP" | "RETURN") || chains.contains(&extension.name)
}

/// `--dport=22` and `-ptcp` carry their argument with them.
fn split_option(text: &str) -> (&str, Option<&str>) {
    if text.starts_with("--") {
        return match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
    }
    let end = text.char_indices().nth(2).map_or(text.len(), |(at, _)| at);
    let (name, value) = text.split_at(end);
    match BuiltIn::exact(name) {
        Some(_) if !value.is_empty() => (name, Some(value)),
        _ => (text, None),
    }
}

fn once<T>(slot: &mut Option<T>, value: T, name: &str) -> Result<(), ErrorKind> {
    if slot.is_some() {
        return syntax(format!("{name} is given twice"));
    }
    *slot = Some(value);
    Ok(())
}

fn addresses(text: &str, invert: bool, family: Family) -> Result<Not<Vec<Masked>>, ErrorKind> {
    let value: Vec<Masked> =
        text.split(',').map(|part| values::masked(part.trim(), family)).collect::<Result<_, _>>()?;
    if invert && value.len() > 1 {
        return syntax("`!` cannot stand before several addresses");
    }
    Ok(Not { invert, value })
}
