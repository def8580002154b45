//! `lab diff` and `lab plan` on the bundled lab and on small files, as a user
//! reads them.

#![allow(clippy::unwrap_used)]

use lab_workspace::{lab, stage as folder};

fn shown(arguments: &[&str]) -> String {
    let run = lab(arguments);
    format!("exit {}\n{}{}", run.code, run.out, run.err)
}

fn stage(name: &str) -> String {
    folder(name).display().to_string()
}

fn refused(arguments: &[&str], why: &str) {
    let run = lab(arguments);
    assert_eq!((run.code, run.out.as_str(), run.err.contains(why)), (2, "", true), "{}", run.err);
}

#[test]
fn four_rules_two_of_which_change_nothing() {
    let shown = shown(&["diff", &stage("02-routes-only"), &stage("03-rules-inserted")]);
    insta::assert_snapshot!(shown);
}

#[test]
fn rules_that_were_saved_in_the_wrong_order() {
    let shown = shown(&["diff", &stage("x1-saved-rules-shadowed"), &stage("03-rules-inserted")]);
    insta::assert_snapshot!(shown);
}

#[test]
fn the_same_snapshot_twice() {
    let shown = shown(&["diff", &stage("02-routes-only"), &stage("02-routes-only")]);
    insta::assert_snapshot!(shown, @r"
    exit 0
    no new connection from any host, or from outside, is treated differently: proved for all
    ");
}

#[test]
fn commands_and_files_for_the_tools() {
    let rules = |name: &str| format!("{}/hosts/openstack-host/iptables.save", stage(name));
    let ask = |format: &str| {
        shown(&["diff", &rules("02-routes-only"), &rules("03-rules-inserted"), "--format", format])
    };
    insta::assert_snapshot!(ask("commands"), @r"
    exit 1
    iptables -t filter -I LIBVIRT_FWI 1 -s 10.10.10.0/24 -d 192.168.100.0/24 -j ACCEPT
    iptables -t filter -I LIBVIRT_FWO 1 -s 192.168.100.0/24 -d 10.10.10.0/24 -j ACCEPT
    ");
    insta::assert_snapshot!("payload", ask("payload"));
}

#[test]
fn a_plan_in_which_nobody_is_hurt() {
    let shown = shown(&["plan", &stage("02-routes-only"), &stage("03-rules-inserted")]);
    insta::assert_snapshot!(shown);
}

#[test]
fn what_is_no_difference_to_ask_about() {
    let (old, new) = (stage("02-routes-only"), stage("03-rules-inserted"));
    let toml = format!("{old}/lab.toml");
    refused(&["diff", &old, &toml], "not one of each");
    refused(&["diff", &toml, &toml], "lab.toml:1");
    refused(&["diff", "nowhere.save", &toml], "nowhere.save");
    refused(&["plan", &old, &new, "--keep", &toml], "lab.toml");
    refused(&["plan", &old, &new, "--timeout", "0"], "0");
}
