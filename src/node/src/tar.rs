//! Writes the little of ustar that an image archive needs.

const BLOCK_BYTES: usize = 512;

/// A tar archive in memory.
#[derive(Debug, Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    /// Adds a file that root owns, with a fixed time, so that equal content gives equal archives.
    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        assert!(name.len() < 100, "ustar holds names of up to 99 bytes");
        let mut h = [0u8; BLOCK_BYTES];
        h[..name.len()].copy_from_slice(name.as_bytes());
        let mut octal = |at: usize, width: usize, value: u64| {
            let text = format!("{value:0width$o}", width = width - 1);
            h[at..at + width - 1].copy_from_slice(text.as_bytes());
        };
        octal(100, 8, u64::from(mode));
        octal(108, 8, 0);
        octal(116, 8, 0);
        octal(124, 12, content.len() as u64);
        octal(136, 12, 0);
        h[156] = b'0';
        h[257..265].copy_from_slice(b"ustar\x0000");
        h[148..156].fill(b' ');
        let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
        h[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&h);
        self.0.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(BLOCK_BYTES), 0);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK_BYTES]);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_tar_reads_it() {
        let mut t = Tar::default();
        t.file("a/b", 0o755, b"hello");
        t.file("c", 0o644, &[7; 600]);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.tar");
        std::fs::write(&path, t.finish()).expect("written");
        let run = std::process::Command::new("tar")
            .arg("-xf")
            .arg(&path)
            .arg("-C")
            .arg(dir.path())
            .status();
        assert!(run.expect("tar runs").success());
        assert_eq!(
            std::fs::read(dir.path().join("a/b")).expect("there"),
            b"hello"
        );
        assert_eq!(
            std::fs::read(dir.path().join("c")).expect("there"),
            [7; 600]
        );
    }
}
