//! Random labs in which every packet went through a Linux kernel (6.18) as
//! predicted: the prediction is still the same.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use lab_core::query::predict::predict;
use lab_core::{snapshot, Lab};
use lab_workspace::predicted;

/// The difference of a lab's predictions to those that the kernel agreed to.
fn changed(folder: &Path) -> Option<String> {
    let lab = Lab::open(folder).unwrap();
    let now = predicted(&predict(&lab, &snapshot::read_probes(folder).unwrap()));
    let agreed = fs::read_to_string(folder.join("predicted.txt")).unwrap();
    let lines = now.lines().zip(agreed.lines()).filter(|(now, agreed)| now != agreed);
    let lines: Vec<String> =
        lines.map(|(now, agreed)| format!("  now    {now}\n  agreed {agreed}")).collect();
    (now != agreed).then(|| format!("{}:\n{}", folder.display(), lines.join("\n")))
}

#[test]
fn what_the_kernel_agreed_to_is_still_predicted() {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/agreed.tar.gz");
    let folder = tempfile::tempdir().unwrap();
    tar::Archive::new(GzDecoder::new(fs::File::open(archive).unwrap())).unpack(folder.path()).unwrap();
    let labs: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(labs.len() > 50);
    let half = labs.len() / 2;
    let changed = |labs: &[PathBuf]| labs.iter().filter_map(|lab| changed(lab)).collect::<Vec<String>>();
    let wrong = std::thread::scope(|scope| {
        let first = scope.spawn(|| changed(&labs[..half]));
        let mut wrong = changed(&labs[half..]);
        wrong.extend(first.join().unwrap());
        wrong
    });
    assert!(wrong.is_empty(), "{} of {} labs:\n{}", wrong.len(), labs.len(), wrong.join("\n"));
}
