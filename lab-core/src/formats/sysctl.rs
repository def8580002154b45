//! `sysctl -a`, or any part of it.

use super::{json, Error};
use crate::model::Sysctls;

/// The dotted form of a key. `sysctl` also takes keys with slashes between
/// their parts, where dots belong to the parts: the first separator tells.
fn dotted(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key[at..].starts_with('/') => {
            let swap = |c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            };
            key.chars().map(swap).collect()
        }
        _ => key.to_owned(),
    }
}

/// The last parts of the keys that decide where packets go. Each is a number:
/// what is not one was cut off or is no output of `sysctl`.
const NUMBERS: [&str; 15] = [
    "accept_local",
    "arp_filter",
    "arp_ignore",
    "bridge-nf-call-ip6tables",
    "bridge-nf-call-iptables",
    "force_forwarding",
    "forwarding",
    "hop_limit",
    "ip_default_ttl",
    "ip_forward",
    "nf_conntrack_tcp_loose",
    "proxy_arp",
    "route_localnet",
    "rp_filter",
    "src_valid_mark",
];

fn is_number(value: &str) -> bool {
    value.parse::<i64>().is_ok()
}

/// Reads `key = value` lines. Empty lines and those that start with `#` or
/// `;` are comments; the last of several values for a key holds, as with
/// `sysctl -p`.
///
/// # Errors
///
/// A line without a key or without `=`; a setting that decides where packets
/// go and is not a number.
pub fn parse(file: &str, text: &str) -> Result<Sysctls, Error> {
    json::guard(file, text)?;
    let mut settings = Sysctls::default();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        let Some((key, value)) = content.split_once('=') else {
            return Err(Error::syntax(file, line, content, "`key = value` is expected"));
        };
        // A leading `-` in sysctl.conf only says that failures do not matter.
        let key = key.trim();
        let key = dotted(key.strip_prefix('-').unwrap_or(key));
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(Error::syntax(file, line, content, "`key = value` is expected"));
        }
        let last = key.rsplit('.').next().unwrap_or_default();
        if key.starts_with("net.") && NUMBERS.contains(&last) && !is_number(value.trim()) {
            return Err(Error::value(file, line, content, "a number is expected"));
        }
        settings.0.insert(key, value.trim().to_owned());
    }
    Ok(settings)
}

/// Prints settings as `sysctl` does, by key.
pub fn print(settings: &Sysctls) -> String {
    settings.0.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_both_forms_and_comments() {
        let text = "# made by hand\nnet.ipv4.ip_forward = 1\n\n; more\nnet/ipv4/conf/eth0.10/rp_filter=2\n\
                    kernel.domainname =\n";
        let settings = parse("sysctl.txt", text).unwrap();
        assert_eq!(settings.number("net.ipv4.ip_forward"), Some(1));
        assert_eq!(settings.interface("ipv4", "eth0.10", "rp_filter"), Some(2));
        assert_eq!(settings.0["kernel.domainname"], "");
        assert_eq!(
            print(&settings),
            "kernel.domainname = \nnet.ipv4.conf.eth0/10.rp_filter = 2\nnet.ipv4.ip_forward = 1\n"
        );
    }

    #[test]
    fn a_line_without_a_value_is_an_error() {
        let message = |text| parse("sysctl.txt", text).unwrap_err().to_string();
        assert_eq!(
            message("a = 1\nsysctl: permission denied"),
            "sysctl.txt:2: `key = value` is expected: `sysctl: permission denied`"
        );
        assert_eq!(message("= 1"), "sysctl.txt:1: `key = value` is expected: `= 1`");
    }

    proptest! {
        #[test]
        fn print_is_the_inverse(pairs in proptest::collection::btree_map(
            "[a-z][a-z0-9_]{0,8}(\\.[a-z0-9_/]{1,6}){0,3}", "([!-~]{1,6}[ \t]){0,3}[!-~]{0,8}", 0..6
        )) {
            let trimmed = pairs.into_iter().map(|(k, v)| (k, v.trim().to_owned()));
            let settings = Sysctls(trimmed.filter(|(k, _)| !k.contains('/') || k.contains('.')).collect());
            prop_assert_eq!(parse("f", &print(&settings)).unwrap(), settings);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            let _ = parse("f", &text);
        }
    }
}
