//! `lab show`: what was understood of a snapshot.

use std::path::{Path, PathBuf};

use lab_workspace::{ask, networks, stage, STAGES};

#[test]
fn one_host_in_short() {
    let run = ask("show", &stage("05-kubernetes"), &["compute"]);
    insta::assert_snapshot!("compute", run.out);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
}

#[test]
fn json_says_its_schema_and_every_host() {
    let run = ask("show", &stage("05-kubernetes"), &["--json"]);
    let value: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((&value["schema"], &value["name"]), (&"lab.show/1".into(), &"05-kubernetes".into()));
    let hosts: Vec<&str> =
        value["hosts"].as_array().unwrap().iter().filter_map(|h| h["name"].as_str()).collect();
    let folders = lab_workspace::hosts("05-kubernetes");
    let folders: Vec<&str> = folders.iter().filter_map(|f| f.file_name()?.to_str()).collect();
    assert_eq!(hosts, folders);
    assert!(value["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .all(|h| h["unmodelled"].as_array().unwrap().is_empty()));
}

#[test]
fn everything_in_the_bundled_lab_is_understood() {
    for name in STAGES {
        let run = ask("show", &stage(name), &[]);
        assert!(!run.out.contains("not understood") && !run.out.contains("not told"), "{name}");
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{name}");
    }
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

#[test]
fn everything_in_the_recorded_networks_is_understood() {
    for path in networks() {
        let run = ask("show", &path, &[]);
        assert!(!run.out.contains("not understood") && !run.out.contains("not told"), "{}", run.out);
    }
}

#[test]
fn devices_on_top_of_others_say_what_they_are() {
    let mut told = String::new();
    for (network, host) in [
        ("vlan-bridge", "sw"),
        ("vlan-bridge", "r1"),
        ("bond", "srv"),
        ("vrf", "r1"),
        ("macvlan", "dock"),
        ("ipip", "r1"),
        ("wireguard", "wa"),
        ("vxlan-mtu", "v1"),
    ] {
        let run = ask("show", &recorded().join(network), &[host]);
        told += &format!("{network}\n");
        let devices =
            run.out.lines().filter(|l| l.starts_with("  ") && l.contains('(') && !l.contains("  table"));
        devices.for_each(|line| told += &format!("{line}\n"));
    }
    insta::assert_snapshot!("devices", told);
}

#[test]
fn a_wrong_host_gets_the_nearest_right_ones() {
    let run = ask("show", &stage("05-kubernetes"), &["comptue"]);
    assert_eq!(run.err, "lab: no host named `comptue`; did you mean compute or controller or home-router?\n");
    assert_eq!((run.code, run.out.as_str()), (2, ""));
}
