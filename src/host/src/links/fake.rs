//! Links that are only data.

use std::collections::BTreeMap;

use async_trait::async_trait;
use ipnet::IpNet;
use parking_lot::Mutex;

use super::{Link, LinkError, Links, Route};

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<String, Link>,
    addresses: Vec<(String, IpNet)>,
    routes: Vec<Route>,
}

/// Links that are only data; there are none at first.
#[derive(Debug, Default)]
pub struct FakeLinks(Mutex<State>);

impl FakeLinks {
    fn known(&self, link: &str) -> Result<(), LinkError> {
        if self.0.lock().links.contains_key(link) {
            Ok(())
        } else {
            Err(LinkError::NoLink(link.to_owned()))
        }
    }
}

#[async_trait]
impl Links for FakeLinks {
    async fn link(&self, name: &str) -> Result<Option<Link>, LinkError> {
        Ok(self.0.lock().links.get(name).cloned())
    }

    async fn ensure_bridge(&self, name: &str) -> Result<(), LinkError> {
        let mut s = self.0.lock();
        let index = u32::try_from(s.links.len()).expect("a test has few links") + 1;
        s.links.entry(name.to_owned()).or_insert_with(|| Link {
            name: name.to_owned(),
            index,
            up: true,
        });
        Ok(())
    }

    async fn remove_link(&self, name: &str) -> Result<(), LinkError> {
        let mut s = self.0.lock();
        s.links.remove(name);
        s.addresses.retain(|(l, _)| l != name);
        s.routes.retain(|r| r.link != name);
        Ok(())
    }

    async fn addresses(&self) -> Result<Vec<(String, IpNet)>, LinkError> {
        Ok(self.0.lock().addresses.clone())
    }

    async fn ensure_address(&self, link: &str, address: IpNet) -> Result<(), LinkError> {
        self.known(link)?;
        let entry = (link.to_owned(), address);
        let mut s = self.0.lock();
        if !s.addresses.contains(&entry) {
            s.addresses.push(entry);
        }
        Ok(())
    }

    async fn remove_address(&self, link: &str, address: IpNet) -> Result<(), LinkError> {
        self.0
            .lock()
            .addresses
            .retain(|(l, a)| l != link || *a != address);
        Ok(())
    }

    async fn routes(&self) -> Result<Vec<Route>, LinkError> {
        Ok(self.0.lock().routes.clone())
    }

    async fn ensure_route(&self, route: &Route) -> Result<(), LinkError> {
        self.known(&route.link)?;
        let mut s = self.0.lock();
        s.routes.retain(|r| r.destination != route.destination);
        s.routes.push(route.clone());
        Ok(())
    }

    async fn remove_route(&self, route: &Route) -> Result<(), LinkError> {
        self.0.lock().routes.retain(|r| r != route);
        Ok(())
    }
}
