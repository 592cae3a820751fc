//! The first process of a pod's sandbox: holds its namespaces, reaps what is orphaned in them, and ends when asked to.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

const SIGINT: u64 = 2;
const SIGTERM: u64 = 15;
const SIGCHLD: u64 = 17;
/// The signals that are waited for. They stay blocked: a blocked signal reaches even the first process of a namespace.
const WAITED: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);
const SIG_BLOCK: usize = 0;
const SIGSET_BYTES: usize = 8;
const WNOHANG: usize = 1;
const ANY_CHILD: usize = usize::MAX;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const SIGPROCMASK: usize = 14;
    pub const WAIT4: usize = 61;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const EXIT_GROUP: usize = 94;
    pub const SIGPROCMASK: usize = 135;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const WAIT4: usize = 260;
}

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor %ebp, %ebp", "and $-16, %rsp", "call run", "hlt", options(att_syntax));

#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "bl run", "brk #0");

#[cfg(target_arch = "x86_64")]
fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the callers pass what the kernel's interface asks for; `syscall` overwrites rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _);
    }
    result
}

#[cfg(target_arch = "aarch64")]
fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the callers pass what the kernel's interface asks for.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d);
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn run() -> ! {
    let set = &raw const WAITED_SET as usize;
    call(number::SIGPROCMASK, SIG_BLOCK, set, 0, SIGSET_BYTES);
    loop {
        let signal = call(number::SIGTIMEDWAIT, set, 0, 0, SIGSET_BYTES);
        if signal == SIGTERM as isize || signal == SIGINT as isize {
            call(number::EXIT_GROUP, 0, 0, 0, 0);
        }
        while call(number::WAIT4, ANY_CHILD, 0, WNOHANG, 0) > 0 {}
    }
}

static WAITED_SET: u64 = WAITED;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        call(number::EXIT_GROUP, 1, 0, 0, 0);
    }
}
