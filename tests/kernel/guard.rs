//! WireGuard: keys of its own, and handshakes before anything can be in their
//! way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lab_core::model::{Host, Interface, InterfaceKind, Lab, Wireguard};

use crate::build::Built;
use crate::space::Space;

/// How long a handshake may take.
const GREETING: Duration = Duration::from_secs(4);

/// The WireGuard devices of a host.
fn guards(host: &Host) -> impl Iterator<Item = (&Interface, &Wireguard)> {
    host.interfaces.iter().filter_map(|i| match &i.kind {
        InterfaceKind::Wireguard(settings) => Some((i, settings)),
        _ => None,
    })
}

/// Whether a lab has any.
pub fn any(lab: &Lab) -> bool {
    lab.all_hosts().any(|host| guards(host).next().is_some())
}

fn told(space: &Space, arguments: &[&str], input: &str) -> Result<String, String> {
    let printed = space.run("wg", arguments, input);
    if printed.done {
        return Ok(printed.out.trim().to_owned());
    }
    Err(format!("wg: {}", printed.err.trim()))
}

/// Gives every device a key and its peers, and waits until all have shaken
/// hands.
///
/// # Errors
/// They do not.
pub fn greet(lab: &Lab, built: &Built) -> Result<(), String> {
    // The lab's keys are names.
    let mut keys = BTreeMap::new();
    for (_, settings) in lab.all_hosts().flat_map(guards) {
        let private = told(&built.outside, &["genkey"], "")?;
        let public = told(&built.outside, &["pubkey"], &private)?;
        keys.insert(settings.public_key.clone(), (private, public));
    }
    let key = |name: &str| keys.get(name).ok_or("a peer without a device");
    for host in lab.all_hosts() {
        for (device, settings) in guards(host) {
            let (private, _) = key(&settings.public_key)?;
            let mut text = format!("[Interface]\nPrivateKey = {private}\nListenPort = {}\n", settings.port);
            if settings.mark != 0 {
                text += &format!("FwMark = {}\n", settings.mark);
            }
            for peer in &settings.peers {
                let allowed: Vec<String> = peer.allowed.iter().map(ToString::to_string).collect();
                let (_, public) = key(&peer.public_key)?;
                text += &format!("[Peer]\nPublicKey = {public}\nAllowedIPs = {}\n", allowed.join(", "));
                if let Some(endpoint) = peer.endpoint {
                    text += &format!("Endpoint = {endpoint}\n");
                }
                // To be kept alive is to be greeted at once.
                text += "PersistentKeepalive = 1\n";
            }
            told(&built.hosts[&host.name], &["setconf", &device.name, "/dev/stdin"], &text)?;
        }
    }
    let start = Instant::now();
    for host in lab.all_hosts() {
        let space = &built.hosts[&host.name];
        for (device, settings) in guards(host) {
            while told(space, &["show", &device.name, "latest-handshakes"], "")?
                .lines()
                .any(|l| l.split_whitespace().nth(1) == Some("0"))
            {
                if start.elapsed() > GREETING {
                    return Err("WireGuard's peers do not shake hands".into());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            for peer in &settings.peers {
                let (_, public) = key(&peer.public_key)?;
                told(space, &["set", &device.name, "peer", public, "persistent-keepalive", "0"], "")?;
            }
        }
    }
    Ok(())
}

/// Makes peers forget from where they last heard of each other: they follow
/// packets whose source was translated on the way.
pub fn return_home(lab: &Lab, built: &Built) {
    for host in lab.all_hosts() {
        for (device, settings) in guards(host) {
            for peer in &settings.peers {
                let Some(endpoint) = peer.endpoint.map(|e| e.to_string()) else { continue };
                let arguments = ["set", &device.name, "peer", &peer.public_key, "endpoint", &endpoint];
                built.hosts[&host.name].run("wg", &arguments, "");
            }
        }
    }
}
