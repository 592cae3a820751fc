//! The cluster's CA, certificates and kubeconfigs.
