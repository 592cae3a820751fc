//! ServiceCIDRs.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{list, map_mut};
use serde_json::{Value, json};

use super::checks::{Errors, cidr, keep};
use super::columns::{AGE, NAME, named_row, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of servicecidrs.
pub(super) struct ServiceCidr;

static COLUMNS: [Column; 3] = [
    NAME,
    string(
        "CIDRs",
        "CIDRs defines the IP blocks in CIDR notation (e.g. \"192.168.0.0/24\" or \"2001:db8::/64\") from which to assign service cluster IPs. Max of two CIDRs is allowed, one of each IP family. This field is immutable.",
    ),
    AGE,
];

impl Strategy for ServiceCidr {
    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        map_mut(object, &[]).insert("status".into(), json!({}));
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec").child("cidrs");
        let all = list(object, &["spec", "cidrs"]);
        if all.is_empty() {
            errors.push(Error::required(&at, "at least one CIDR required"));
        }
        let mut families = Vec::new();
        for (i, text) in all.iter().filter_map(Value::as_str).enumerate() {
            let Some(net) = cidr(&mut errors, &at.index(i), text) else {
                continue;
            };
            if net.trunc() != net {
                let why = "must not have bits set beyond the prefix length";
                errors.push(Error::invalid(&at.index(i), text, why));
            }
            families.push(net.addr().is_ipv4());
        }
        if all.len() > 2 || (families.len() == 2 && families[0] == families[1]) {
            let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errors.push(Error::invalid(&at, all.to_vec(), why));
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec").child("cidrs");
        let (now, was) = (list(new, &["spec", "cidrs"]), list(old, &["spec", "cidrs"]));
        for (i, c) in was.iter().enumerate() {
            if now.get(i) != Some(c) {
                let shown = now.get(i).cloned().unwrap_or_default();
                errors.push(Error::invalid(&at.index(i), shown, "field is immutable"));
            }
        }
        if errors.is_empty() && now.len() != was.len() {
            errors.extend(self.validate(cx, new));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let all: Vec<&str> = list(object, &["spec", "cidrs"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        named_row(object, now, [all.join(",").into()])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields};
    use super::*;

    #[test]
    fn blocks_are_whole_and_one_a_family() {
        let of = |c: Value| fields(&ServiceCidr.validate(&cx(), &json!({"spec": {"cidrs": c}})));
        assert!(of(json!(["10.0.0.0/24", "2001:db8::/64"])).is_empty());
        assert_eq!(of(json!(["x"])), ["spec.cidrs[0]"]);
        assert_eq!(of(json!(["10.0.0.1/24"])), ["spec.cidrs[0]"]);
        assert_eq!(of(json!(["10.0.0.0/24", "10.1.0.0/24"])), ["spec.cidrs"]);
    }

    #[test]
    fn blocks_stay() {
        let of = |c: &str| json!({"spec": {"cidrs": [c]}});
        let e = ServiceCidr.validate_update(&cx(), &of("10.1.0.0/24"), &of("10.0.0.0/24"));
        assert_eq!(fields(&e), ["spec.cidrs[0]"]);
    }
}
