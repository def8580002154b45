//! Networks that a Linux kernel (6.18) was asked about: every probe's recorded
//! outcome, place, header, answer and deciding rule against the prediction.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use lab_core::query::predict::predict;
use lab_core::render::predictions::document;
use lab_core::{snapshot, Lab};
use serde_json::Value;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    cases.sort();
    cases
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The fields of a recorded object that the prediction does not share.
fn differences(recorded: &Value, predicted: &Value, leave: &[&str]) -> Vec<String> {
    let fields = recorded.as_object().into_iter().flatten();
    fields
        .filter(|(key, _)| !leave.contains(&key.as_str()))
        .filter(|(key, value)| text(value) != text(&predicted[key.as_str()]))
        .map(|(key, value)| format!("{key}: recorded {value}, predicted {}", predicted[key.as_str()]))
        .collect()
}

fn compare(recorded: &Value, predicted: &Value) -> Vec<String> {
    if predicted["certain"] == false {
        let possible = predicted["possible"].as_array().into_iter().flatten();
        let among = possible.clone().any(|p| p["outcome"] == recorded["outcome"]);
        return if among { Vec::new() } else { vec![format!("not among {possible:?}")] };
    }
    let port: &[&str] = if recorded["random_port"] == true { &["sport"] } else { &[] };
    let mut wrong = differences(recorded, predicted, &["at", "seen", "answer", "decided_by", "random_port"]);
    // Which of equal routes is taken is not known, and with it the interface.
    let iface: &[&str] = if predicted["at"]["iface"].is_null() { &["iface"] } else { &[] };
    wrong.extend(differences(&recorded["at"], &predicted["at"], iface));
    wrong.extend(differences(&recorded["seen"], &predicted["seen"], port));
    wrong.extend(differences(&recorded["answer"], &predicted["answer"], &[]));
    // An errno is only seen from inside the sending program.
    let sent = recorded["decided_by"]["stage"].as_str().is_some_and(|s| s.starts_with("send:"));
    let stage: &[&str] = if sent { &["stage"] } else { &[] };
    wrong.extend(differences(&recorded["decided_by"], &predicted["decided_by"], stage));
    wrong
}

#[test]
fn every_prediction_is_what_the_kernel_did() {
    let (mut probes, mut certain, mut wrong) = (0, 0, Vec::new());
    for case in cases() {
        let lab = Lab::open(&case).unwrap();
        let predictions = predict(&lab, &snapshot::read_probes(&case).unwrap());
        let document = document(&lab.name, &predictions);
        let truth = std::fs::read_to_string(case.join("truth.json")).unwrap();
        let truth: Vec<Value> = serde_json::from_str(&truth).unwrap();
        assert_eq!(truth.len(), predictions.len());
        for (recorded, predicted) in truth.iter().zip(document["probes"].as_array().unwrap()) {
            if recorded.get("unsure").is_some() {
                continue;
            }
            probes += 1;
            certain += usize::from(predicted["certain"] == true);
            for difference in compare(recorded, predicted) {
                wrong.push(format!("{} {}: {difference}", lab.name, recorded["id"]));
            }
        }
    }
    println!("{probes} probes, {certain} certain");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(probes > 500 && certain * 100 >= probes * 95, "{certain} of {probes} are certain");
}
