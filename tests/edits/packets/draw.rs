//! Random rule sets of a router that packets of a small world meet: its two
//! subnets, a few addresses beyond, a few ports.

use super::super::draw::Dice;

/// Addresses of senders and receivers; the router's own end in 254.
pub const ADDRESSES: [&str; 9] = [
    "10.0.1.1",
    "10.0.1.2",
    "10.0.1.3",
    "10.0.1.254",
    "10.0.2.1",
    "10.0.2.2",
    "10.0.2.3",
    "10.0.2.254",
    "198.51.100.7",
];
pub const PREFIXES: [&str; 5] =
    ["10.0.1.0/24", "10.0.2.0/24", "10.0.2.2/31", "10.0.0.0/15", "198.51.100.0/24"];
pub const PORTS: [u16; 5] = [22, 53, 80, 443, 8080];

/// A chain with its rules; what is said of it where it is made.
#[derive(Clone)]
struct Chain {
    name: &'static str,
    head: String,
    rules: Vec<String>,
}

/// A table with its chains; those that are led to stand behind.
#[derive(Clone)]
struct Table {
    name: &'static str,
    chains: Vec<Chain>,
}

/// The chains that a chain may lead to.
fn below(chain: &str) -> &'static [&'static str] {
    match chain {
        "INPUT" | "FORWARD" | "pass" | "in" => &["one", "two", "three"],
        "one" => &["two", "three"],
        "two" => &["three"],
        "PREROUTING" => &["doors"],
        _ => &[],
    }
}

fn place(dice: &mut Dice) -> &'static str {
    match dice.one_in(2) {
        true => ADDRESSES[dice.below(ADDRESSES.len())],
        false => PREFIXES[dice.below(PREFIXES.len())],
    }
}

/// A rule of iptables.
fn xrule(dice: &mut Dice, chain: &str) -> String {
    let mut words = String::new();
    let not = |dice: &mut Dice| if dice.one_in(5) { "! " } else { "" };
    if dice.one_in(3) {
        words += &format!("{}-s {} ", not(dice), place(dice));
    }
    if dice.one_in(3) {
        words += &format!("{}-d {} ", not(dice), place(dice));
    }
    if dice.one_in(6) && !matches!(chain, "POSTROUTING") {
        words += &format!("{}-i {} ", not(dice), dice.pick(&["eth0", "eth1"]));
    }
    if dice.one_in(6) && matches!(chain, "POSTROUTING" | "FORWARD") {
        words += &format!("{}-o {} ", not(dice), dice.pick(&["eth0", "eth1"]));
    }
    let protocol = *dice.pick(&["", "tcp", "tcp", "udp", "icmp"]);
    if !protocol.is_empty() {
        words += &format!("-p {protocol} ");
    }
    let ports = matches!(protocol, "tcp" | "udp");
    if ports && dice.one_in(2) {
        let port = *dice.pick(&PORTS);
        words += &match dice.below(4) {
            0 => format!("-m multiport --dports {port},443:9000 "),
            1 => format!("-m {protocol} ! --dport {port} "),
            _ => format!("-m {protocol} --dport {port} "),
        };
    } else if protocol == "tcp" && dice.one_in(5) {
        words += "-m tcp --syn ";
    }
    if dice.one_in(8) {
        words += &format!("-m conntrack --ctstate {} ", dice.pick(&["NEW", "RELATED,ESTABLISHED", "DNAT"]));
    }
    words += &match chain {
        "PREROUTING" | "doors" => match dice.below(6) {
            0 => "-j ACCEPT".to_owned(),
            1 if chain == "PREROUTING" => "-j doors".to_owned(),
            2 if ports => format!("-p {protocol} -j REDIRECT --to-ports {}", dice.pick(&PORTS)),
            3 | 4 if ports => format!(
                "-p {protocol} -j DNAT --to-destination {}:{}",
                dice.pick(&ADDRESSES),
                dice.pick(&PORTS)
            ),
            _ => format!("-j DNAT --to-destination {}", dice.pick(&ADDRESSES)),
        },
        "POSTROUTING" => match dice.below(4) {
            0 => "-j ACCEPT".to_owned(),
            1 => "-j MASQUERADE".to_owned(),
            _ => format!("-j SNAT --to-source {}", dice.pick(&["10.0.1.254", "10.0.2.254", "10.0.2.77"])),
        },
        _ => match dice.below(10) {
            0..=2 => "-j ACCEPT".to_owned(),
            3 | 4 => "-j DROP".to_owned(),
            5 if protocol == "tcp" => "-j REJECT --reject-with tcp-reset".to_owned(),
            5 | 6 => format!(
                "-j REJECT --reject-with icmp-{}",
                dice.pick(&["port-unreachable", "host-unreachable", "net-prohibited", "admin-prohibited"])
            ),
            7 => "-j RETURN".to_owned(),
            _ => match below(chain) {
                [] => "-j DROP".to_owned(),
                chains => format!("{} {}", dice.pick(&["-j", "-j", "-g"]), dice.pick(chains)),
            },
        },
    };
    // The protocol is said once.
    match words.matches("-p ").count() {
        2 => words.replacen(&format!("-p {protocol} -j"), "-j", 1),
        _ => words,
    }
}

/// A rule of nft.
fn nrule(dice: &mut Dice, chain: &str) -> String {
    let mut words = String::new();
    let not = |dice: &mut Dice| if dice.one_in(5) { "!= " } else { "" };
    if dice.one_in(3) {
        words += &format!("ip saddr {}{} ", not(dice), place(dice));
    }
    if dice.one_in(3) {
        words += &match dice.one_in(3) {
            true => "ip daddr { 10.0.1.1-10.0.1.2, 10.0.2.2, 198.51.100.0/24 } ".to_owned(),
            false => format!("ip daddr {}{} ", not(dice), place(dice)),
        };
    }
    if dice.one_in(6) && chain != "post" {
        words += &format!("iifname {}\"{}\" ", not(dice), dice.pick(&["eth0", "eth1"]));
    }
    let protocol = *dice.pick(&["", "tcp", "tcp", "udp", "icmp"]);
    let ports = matches!(protocol, "tcp" | "udp");
    if protocol == "icmp" {
        words += "icmp type echo-request ";
    } else if ports {
        let port = *dice.pick(&PORTS);
        words += &match dice.below(4) {
            0 => format!("{protocol} dport {{ {port}, 8000-9000 }} "),
            1 => format!("{protocol} dport != {port} "),
            2 => format!("meta l4proto {protocol} "),
            _ => format!("{protocol} dport {port} "),
        };
    }
    words += &match chain {
        "pre" => match dice.below(4) {
            0 => "accept".to_owned(),
            1 if ports => format!("redirect to :{}", dice.pick(&PORTS)),
            2 if ports => format!("dnat ip to {}:{}", dice.pick(&ADDRESSES), dice.pick(&PORTS)),
            _ => format!("dnat ip to {}", dice.pick(&ADDRESSES)),
        },
        "post" => match dice.below(3) {
            0 => "masquerade".to_owned(),
            _ => format!("snat ip to {}", dice.pick(&["10.0.1.254", "10.0.2.254", "10.0.2.77"])),
        },
        _ => match dice.below(10) {
            0..=2 => "accept".to_owned(),
            3 => "drop".to_owned(),
            4 if protocol == "tcp" => "reject with tcp reset".to_owned(),
            4 | 5 => format!("reject with icmp {}", dice.pick(&["port-unreachable", "admin-prohibited"])),
            6 => "return".to_owned(),
            7 if ports && chain != "three" => {
                format!("{protocol} dport vmap {{ 22 : accept, 53 : drop, 80-443 : goto three }}")
            }
            _ => match below(chain) {
                [] => "drop".to_owned(),
                chains => format!("{} {}", dice.pick(&["jump", "jump", "goto"]), dice.pick(chains)),
            },
        },
    };
    words
}

/// The tools by which a rule set is loaded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tool {
    Iptables,
    Nft,
}

impl Tool {
    fn rule(self, dice: &mut Dice, chain: &str) -> String {
        match self {
            Tool::Iptables => xrule(dice, chain),
            Tool::Nft => nrule(dice, chain),
        }
    }

    /// What is said of a chain where it is made.
    fn head(self, dice: &mut Dice, chain: &str) -> String {
        let drops = dice.one_in(4) && matches!(chain, "INPUT" | "FORWARD" | "in" | "pass");
        let hook = match (self, chain) {
            (Tool::Iptables, "one" | "two" | "three" | "doors") => return "-".to_owned(),
            (Tool::Iptables, _) => return if drops { "DROP" } else { "ACCEPT" }.to_owned(),
            (_, "in") => "filter hook input priority 0",
            (_, "pass") => "filter hook forward priority 0",
            (_, "pre") => "nat hook prerouting priority -100",
            (_, "post") => "nat hook postrouting priority 100",
            _ => return String::new(),
        };
        format!("type {hook}; policy {};", if drops { "drop" } else { "accept" })
    }

    fn tables(self, dice: &mut Dice) -> Vec<Table> {
        let all: [(&'static str, &[&'static str]); 2] = match self {
            Tool::Iptables => [
                ("filter", &["INPUT", "FORWARD", "OUTPUT", "one", "two", "three"]),
                ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING", "doors"]),
            ],
            Tool::Nft => [("inet fw", &["in", "pass", "one", "two", "three"]), ("ip nat", &["pre", "post"])],
        };
        let mut tables = Vec::new();
        for (name, chains) in all {
            let nat = name.contains("nat");
            let mut made = Vec::new();
            for chain in chains {
                let idle = *chain == "OUTPUT" || nat && *chain == "INPUT";
                let most = if nat { 4 } else { 6 };
                let rules = if idle { 0 } else { dice.below(most) };
                let rules = (0..rules).map(|_| self.rule(dice, chain)).collect();
                let head = self.head(dice, chain);
                // Nobody lets nat drop.
                let head = if nat { head.replace("DROP", "ACCEPT") } else { head };
                made.push(Chain { name: chain, head, rules });
            }
            tables.push(Table { name, chains: made });
        }
        tables
    }

    /// The same with a few rules put in, taken out, or moved, or other policies.
    fn changed(self, dice: &mut Dice, old: &[Table]) -> Vec<Table> {
        let mut tables = old.to_vec();
        for _ in 0..=dice.below(4) {
            let table = usize::from(dice.one_in(3));
            let at = dice.below(tables[table].chains.len());
            let chain = &mut tables[table].chains[at];
            if chain.name == "OUTPUT" || table == 1 && chain.name == "INPUT" {
                continue;
            }
            let at = dice.below(chain.rules.len() + 1);
            match dice.below(5) {
                0 => chain.head = self.head(dice, chain.name),
                1 if at < chain.rules.len() => drop(chain.rules.remove(at)),
                2 if at < chain.rules.len() => {
                    let rule = chain.rules.remove(at);
                    let to = dice.below(chain.rules.len() + 1);
                    chain.rules.insert(to, rule);
                }
                _ => chain.rules.insert(at, self.rule(dice, chain.name)),
            }
        }
        tables
    }

    fn written(self, tables: &[Table]) -> String {
        let mut out = String::new();
        for table in tables {
            match self {
                Tool::Iptables => {
                    out += &format!("*{}\n", table.name);
                    for chain in &table.chains {
                        out += &format!(":{} {} [0:0]\n", chain.name, chain.head);
                    }
                    for chain in &table.chains {
                        for rule in &chain.rules {
                            out += &format!("-A {} {rule}\n", chain.name);
                        }
                    }
                    out += "COMMIT\n";
                }
                Tool::Nft => {
                    out += &format!("table {} {{\n", table.name);
                    for chain in table.chains.iter().rev() {
                        let lines: Vec<&str> = std::iter::once(&chain.head)
                            .chain(&chain.rules)
                            .filter(|line| !line.is_empty())
                            .map(String::as_str)
                            .collect();
                        out += &format!("\tchain {} {{\n\t\t{}\n\t}}\n", chain.name, lines.join("\n\t\t"));
                    }
                    out += "}\n";
                }
            }
        }
        out
    }

    /// Two rule sets, often a little different, at times wholly.
    pub fn pair(self, dice: &mut Dice) -> (String, String) {
        let old = self.tables(dice);
        let new = if dice.one_in(4) { self.tables(dice) } else { self.changed(dice, &old) };
        (self.written(&old), self.written(&new))
    }
}
