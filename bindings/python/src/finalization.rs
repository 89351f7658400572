//! Threads that still run when the interpreter finalizes.
//!
//! Before 3.14, CPython ends a daemon thread that tries to take the GIL of a finalizing interpreter
//! by `pthread_exit`. With glibc that is a forced unwind: it runs the cleanup of every frame of the
//! thread, at any call into Python. Cleanup in Rust frames would touch Python objects without the
//! GIL, and a forced unwind that reaches `catch_unwind` aborts the process. From 3.14 on CPython
//! hangs such a thread instead; the process ends all the same, since nothing joins a daemon thread.
//!
//! [`hang_instead_of_unwinding`] brings that to earlier versions, for every Rust frame of this
//! library. The unwinder asks a frame's personality routine before it runs any of the frame's
//! cleanup. The routine of all Rust frames is found through one pointer in this library's data,
//! which compilers of the GNU convention name `DW.ref.` and the routine's name. That pointer is
//! replaced by one to [`personality`], which hangs the thread if the unwind is forced, and else
//! continues in Rust's routine: panics unwind as ever.
//!
//! A hanging thread holds no lock of this library, no critical section, and pins no entry: none of
//! these is held while Python runs.

#[cfg(all(target_os = "linux", target_env = "gnu", not(target_arch = "arm"), not(Py_3_14)))]
mod forced_unwind {
    use std::ffi::{c_int, c_void};
    use std::sync::atomic::{AtomicPtr, Ordering};

    type Personality = unsafe extern "C" fn(c_int, c_int, u64, *mut c_void, *mut c_void) -> c_int;

    /// `_UA_FORCE_UNWIND`, of the Itanium C++ ABI: the unwind comes from `pthread_exit` or a
    /// cancellation.
    const FORCED: c_int = 8;

    unsafe extern "C" {
        #[link_name = "DW.ref.rust_eh_personality"]
        static PERSONALITY: AtomicPtr<c_void>;
    }

    /// Rust's own personality routine.
    static ORIGINAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

    pub(crate) fn hang_instead_of_unwinding() {
        let this = personality as *const () as *mut c_void;
        // SAFETY: the pointer is in writable data of this library, one word, and nothing but the
        // unwinder reads it.
        let pointer = unsafe { &PERSONALITY };
        let original = pointer.load(Ordering::Relaxed);
        if original != this {
            // Release pairs with the Acquire in `personality`, which runs only after the next
            // store.
            ORIGINAL.store(original, Ordering::Release);
            pointer.store(this, Ordering::Release);
        }
    }

    /// # Safety
    /// Called by the unwinder, as a personality routine.
    unsafe extern "C" fn personality(
        version: c_int,
        actions: c_int,
        class: u64,
        exception: *mut c_void,
        context: *mut c_void,
    ) -> c_int {
        if actions & FORCED != 0 {
            loop {
                // SAFETY: it has no conditions. It returns after a signal's handler has run on this
                // thread.
                unsafe { libc::pause() };
            }
        }
        // Acquire pairs with the Release in `hang_instead_of_unwinding`.
        let original = ORIGINAL.load(Ordering::Acquire);
        // SAFETY: the pointer that was stored there is Rust's personality routine, and the
        // arguments are the unwinder's.
        unsafe {
            let original = std::mem::transmute::<*mut c_void, Personality>(original);
            original(version, actions, class, exception, context)
        }
    }
}

/// Has threads that the finalizing interpreter ends hang at their first Rust frame, before any of
/// its cleanup runs.
pub(crate) fn hang_instead_of_unwinding() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(target_arch = "arm"), not(Py_3_14)))]
    forced_unwind::hang_instead_of_unwinding();
}
