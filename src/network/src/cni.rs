//! The CNI configuration: plain text for the plugins that run pods' links.

use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde_json::{Value, json};

/// Name of the network, and of the folder in which `host-local` keeps the addresses it gave out.
pub const NETWORK_NAME: &str = "kontiki";
/// Name of the configuration file. The first by name is taken, so that it stands before those of packages.
pub const FILE_NAME: &str = "05-kontiki.conflist";
/// The plugins that the configuration names.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "portmap", "loopback"];

/// The CNI configuration cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// A plugin is missing.
    #[error(
        "the CNI plugin {} is missing; on Debian: apt-get install containernetworking-plugins",
        .0.display()
    )]
    PluginMissing(PathBuf),
    /// The file cannot be written or removed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// What the configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniNetwork {
    /// The bridge that pods are connected to.
    pub bridge: String,
    /// The addresses of the node's pods.
    pub pod_cidr: Ipv4Net,
    /// The size of the largest packet; `None` for the kernel's choice.
    pub mtu_bytes: Option<u32>,
    /// Where `host-local` keeps the addresses that it gave out.
    pub ipam_dir: PathBuf,
}

/// The configuration as JSON.
pub fn conflist(n: &CniNetwork) -> Value {
    let mut bridge = json!({
        "type": "bridge",
        "bridge": n.bridge,
        "isGateway": true,
        // Masquerade is in our own table, which spares pod and service addresses.
        "ipMasq": false,
        // A pod has to reach itself through its service.
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": n.pod_cidr.trunc().to_string()}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": n.ipam_dir,
        },
    });
    if let Some(mtu) = n.mtu_bytes {
        bridge["mtu"] = mtu.into();
    }
    json!({
        "cniVersion": "1.0.0",
        "name": NETWORK_NAME,
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}],
    })
}

/// Looks whether the plugins are there.
///
/// # Errors
/// One is missing.
pub fn check_plugins(bin_dir: &Path) -> Result<(), CniError> {
    match PLUGINS
        .iter()
        .map(|p| bin_dir.join(p))
        .find(|p| !p.is_file())
    {
        Some(missing) => Err(CniError::PluginMissing(missing)),
        None => Ok(()),
    }
}

/// Writes the configuration, whole or not at all, unless it is there already. Gives whether it was written.
///
/// # Errors
/// The file cannot be written.
pub fn write(conf_dir: &Path, network: &CniNetwork) -> Result<bool, CniError> {
    let path = conf_dir.join(FILE_NAME);
    let failed = |action| {
        let path = path.clone();
        move |source| CniError::File {
            action,
            path,
            source,
        }
    };
    let text = format!("{:#}\n", conflist(network));
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    std::fs::create_dir_all(conf_dir).map_err(failed("make the folder of"))?;
    // Who reads the folder takes files by their ending, and so never a half-written one.
    let partial = conf_dir.join(format!("{FILE_NAME}.partial"));
    std::fs::write(&partial, text).map_err(failed("write"))?;
    std::fs::rename(&partial, &path).map_err(failed("write"))?;
    Ok(true)
}

/// Removes the configuration and the record of addresses.
///
/// # Errors
/// They cannot be removed.
pub fn remove(conf_dir: &Path, ipam_dir: &Path) -> Result<(), CniError> {
    let path = conf_dir.join(FILE_NAME);
    gone(std::fs::remove_file(&path), path)?;
    let path = ipam_dir.join(NETWORK_NAME);
    gone(std::fs::remove_dir_all(&path), path)
}

fn gone(result: std::io::Result<()>, path: PathBuf) -> Result<(), CniError> {
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(CniError::File {
            action: "remove",
            path,
            source: e,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> CniNetwork {
        CniNetwork {
            bridge: "kontiki0".into(),
            pod_cidr: "10.244.3.0/24".parse().expect("valid"),
            mtu_bytes: Some(1450),
            ipam_dir: "/var/lib/cni/networks".into(),
        }
    }

    #[test]
    fn the_configuration_names_range_bridge_and_size() {
        let c = conflist(&network());
        assert_eq!(
            c["plugins"][0]["ipam"]["ranges"][0][0]["subnet"],
            "10.244.3.0/24"
        );
        assert_eq!(
            (&c["plugins"][0]["bridge"], &c["plugins"][0]["mtu"]),
            (&"kontiki0".into(), &1450.into())
        );
        let without = conflist(&CniNetwork {
            mtu_bytes: None,
            ..network()
        });
        assert!(without["plugins"][0].get("mtu").is_none());
    }

    #[test]
    fn it_is_written_once_and_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(write(dir.path(), &network()).expect("writable"));
        assert!(
            !write(dir.path(), &network()).expect("writable"),
            "it is there already"
        );
        let other = CniNetwork {
            mtu_bytes: None,
            ..network()
        };
        assert!(write(dir.path(), &other).expect("writable"), "it changed");
        let left: Vec<_> = std::fs::read_dir(dir.path()).expect("there").collect();
        assert_eq!(left.len(), 1);
        for _ in 0..2 {
            remove(dir.path(), dir.path()).expect("removable, also twice");
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0);
    }

    #[test]
    fn a_missing_plugin_names_its_package() {
        let e = check_plugins(Path::new("/nonexistent")).expect_err("there is none");
        assert!(e.to_string().contains("containernetworking-plugins"), "{e}");
    }
}
