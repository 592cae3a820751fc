//! The machine below the kubelet: containerd and the pause image.
