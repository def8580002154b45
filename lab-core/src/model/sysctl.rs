use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Kernel settings, by dotted name. An interface name with a dot in it has a
/// slash there, as `sysctl` prints it: `net.ipv4.conf.eth0/10.rp_filter`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctls(pub BTreeMap<String, String>);

impl Sysctls {
    /// A setting as a number, if it is given and is one.
    ///
    /// ```
    /// use lab_core::model::Sysctls;
    /// let mut settings = Sysctls::default();
    /// settings.0.insert("net.ipv4.ip_forward".into(), "1".into());
    /// assert_eq!(settings.number("net.ipv4.ip_forward"), Some(1));
    /// ```
    pub fn number(&self, key: &str) -> Option<i64> {
        self.0.get(key)?.split_whitespace().next()?.parse().ok()
    }

    /// A per-interface setting, `net.FAMILY.conf.INTERFACE.KEY`.
    pub fn interface(&self, family: &str, interface: &str, key: &str) -> Option<i64> {
        self.number(&format!("net.{family}.conf.{}.{key}", interface.replace('.', "/")))
    }
}
