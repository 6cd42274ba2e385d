//! The ledger of a Rust program: boxes, vectors that grow, and what the allocator's own interface has.
//! With --cfg jemalloc it uses a jemalloc that is linked into it, in the way of tikv-jemallocator:
//! with names that begin with _rjem_, and with sizes and alignments passed along.

use std::alloc::{alloc, alloc_zeroed, dealloc, realloc, Layout};
use std::ffi::CString;
use std::os::raw::{c_char, c_int, c_uint};
use std::ptr::{null, null_mut, read_volatile};

// --- ledger.h -------------------------------------------------------------------------------------

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Request {
    size: usize,
    count: usize, // here: the size of what is old
    alignment: usize,
    old: *mut u8,
    text: *const c_char,
}

#[repr(C)]
pub struct Site {
    name: *const c_char,
    call: extern "C" fn(&Request) -> *mut u8,
    release: extern "C" fn(*mut u8, usize),
    bulk_size: usize,
    bulk_count: c_uint,
}

unsafe impl Sync for Site {}

pub enum Worker {}

#[repr(C)]
struct Group {
    sites: *const Site,
    site_count: usize,
    prepare: Option<extern "C" fn(*mut Worker)>,
    round: extern "C" fn(*mut Worker),
}

unsafe impl Sync for Group {}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    start: *mut u8,
    size: usize,
    site: *const Site,
}

extern "C" {
    fn ledger_add(group: *const Group);
    fn ledger_main(argc: c_int, argv: *const *const c_char) -> c_int;
    fn ledger_draw(w: *mut Worker) -> u64;
    fn ledger_draw_large(w: *mut Worker) -> usize;
    fn ledger_plain(w: *mut Worker, site: *const Site, q: &Request, size: usize);
    fn ledger_allocate(w: *mut Worker, site: *const Site, q: &Request, size: usize) -> Block;
    fn ledger_take_over(w: *mut Worker, old: Block, site: *const Site, q: &Request, size: usize);
}

// --- the allocator --------------------------------------------------------------------------------

#[cfg(jemalloc)]
mod jemalloc {
    use std::alloc::{GlobalAlloc, Layout};
    use std::os::raw::c_int;

    extern "C" {
        fn _rjem_malloc(size: usize) -> *mut u8;
        fn _rjem_calloc(count: usize, size: usize) -> *mut u8;
        fn _rjem_mallocx(size: usize, flags: c_int) -> *mut u8;
        fn _rjem_realloc(old: *mut u8, size: usize) -> *mut u8;
        fn _rjem_rallocx(old: *mut u8, size: usize, flags: c_int) -> *mut u8;
        fn _rjem_sdallocx(block: *mut u8, size: usize, flags: c_int);
    }

    const ZERO: c_int = 0x40;

    /// No flags where any block of that size is aligned well enough.
    fn flags(layout: Layout) -> c_int {
        if layout.align() <= 16 && layout.align() <= layout.size() {
            0
        } else {
            layout.align().trailing_zeros() as c_int
        }
    }

    pub struct Jemalloc;

    unsafe impl GlobalAlloc for Jemalloc {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            match flags(layout) {
                0 => _rjem_malloc(layout.size()),
                flags => _rjem_mallocx(layout.size(), flags),
            }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            match flags(layout) {
                0 => _rjem_calloc(1, layout.size()),
                flags => _rjem_mallocx(layout.size(), flags | ZERO),
            }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            _rjem_sdallocx(block, layout.size(), flags(layout))
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            match flags(Layout::from_size_align_unchecked(size, layout.align())) {
                0 => _rjem_realloc(block, size),
                flags => _rjem_rallocx(block, size, flags),
            }
        }
    }

    #[global_allocator]
    static GLOBAL: Jemalloc = Jemalloc;
}

// --- the sites ------------------------------------------------------------------------------------

const BOX_SIZE: usize = 300;
const ALIGNMENT: usize = 64;

fn bytes(size: usize) -> Layout {
    Layout::from_size_align(size, 1).unwrap()
}

fn aligned(size: usize) -> Layout {
    Layout::from_size_align(size, ALIGNMENT).unwrap()
}

/// A block that is smaller than its alignment is none that malloc can be trusted with.
fn narrow() -> Layout {
    Layout::from_size_align(4, 8).unwrap()
}

fn take(mut vec: Vec<u8>) -> *mut u8 {
    let start = vec.as_mut_ptr();
    std::mem::forget(vec);
    start
}

fn old_vec(q: &Request) -> Vec<u8> {
    unsafe { Vec::from_raw_parts(q.old, q.count, q.count) }
}

fn with_capacity(vec: Vec<u8>, size: usize) -> *mut u8 {
    if vec.capacity() != size {
        std::process::abort();
    }
    take(vec)
}

extern "C" fn drop_box(block: *mut u8, _: usize) {
    drop(unsafe { Box::from_raw(block as *mut [u8; BOX_SIZE]) });
}

extern "C" fn drop_vec(block: *mut u8, size: usize) {
    drop(unsafe { Vec::from_raw_parts(block, 0, size) });
}

extern "C" fn dealloc_aligned(block: *mut u8, size: usize) {
    unsafe { dealloc(block, aligned(size)) }
}

extern "C" fn dealloc_narrow(block: *mut u8, _: usize) {
    unsafe { dealloc(block, narrow()) }
}

/// Each site's function, and an index to find it by. Reading something that only this one has keeps it
/// from being merged with a twin, and its call from becoming a jump, which would leave no frame.
macro_rules! sites {
    ($($function:ident $index:ident $name:literal ($q:ident: $call:expr, $release:ident $(, $size:literal, $count:literal)?);)*) => {
        $(
            #[no_mangle]
            #[inline(never)]
            pub extern "C" fn $function($q: &Request) -> *mut u8 {
                let _ = $q;
                let block: *mut u8 = $call;
                unsafe { read_volatile($name.as_ptr()) };
                block
            }
        )*

        #[allow(dead_code, non_camel_case_types)] // ledger_books.c goes through the bulk sites by itself
        enum Index { $($index,)* COUNT }

        static SITES: [Site; Index::COUNT as usize] = [$(
            Site {
                name: concat!($name, "\0").as_ptr() as *const c_char,
                call: $function,
                release: $release,
                bulk_size: 0 $(+ $size)?,
                bulk_count: 0 $(+ $count)?,
            },
        )*];
    };
}

sites! {
    site_rust_box BOX "rust_box" (q: Box::into_raw(Box::new([0x5au8; BOX_SIZE])) as *mut u8, drop_box);
    site_rust_vec VEC "rust_vec" (q: take(Vec::with_capacity(q.size)), drop_vec);
    site_rust_vec_zeroed VEC_ZEROED "rust_vec_zeroed" (q: take(vec![0; q.size]), drop_vec);
    site_rust_string STRING "rust_string" (q: take("x".repeat(q.size).into_bytes()), drop_vec);
    site_rust_zeroed ZEROED "rust_zeroed" (q: unsafe { alloc_zeroed(bytes(q.size)) }, drop_vec);
    site_rust_aligned ALIGNED "rust_aligned" (q: unsafe { alloc(aligned(q.size)) }, dealloc_aligned);
    site_rust_aligned_zeroed ALIGNED_ZEROED "rust_aligned_zeroed"
        (q: unsafe { alloc_zeroed(aligned(q.size)) }, dealloc_aligned);
    site_rust_narrow NARROW "rust_narrow" (q: unsafe { alloc(narrow()) }, dealloc_narrow);
    site_rust_vec_old VEC_OLD "rust_vec_old" (q: take(Vec::with_capacity(q.size)), drop_vec);
    site_rust_vec_reserve VEC_RESERVE "rust_vec_reserve" (q: {
        let mut vec = old_vec(q);
        vec.reserve_exact(q.size - q.count);
        with_capacity(vec, q.size)
    }, drop_vec);
    site_rust_vec_push VEC_PUSH "rust_vec_push" (q: {
        let mut vec = old_vec(q);
        vec.push(1); // makes it twice as large
        with_capacity(vec, q.size)
    }, drop_vec);
    site_rust_vec_shrink VEC_SHRINK "rust_vec_shrink" (q: {
        let mut vec = old_vec(q);
        vec.truncate(q.size);
        vec.shrink_to_fit();
        with_capacity(vec, q.size)
    }, drop_vec);
    site_rust_aligned_grow ALIGNED_GROW "rust_aligned_grow"
        (q: unsafe { realloc(q.old, aligned(q.count), q.size) }, dealloc_aligned);

    site_bulk_rust_64 BULK_64 "bulk_rust_64" (q: take(Vec::with_capacity(q.size)), drop_vec, 64, 8192);
    site_bulk_rust_512 BULK_512 "bulk_rust_512" (q: take(vec![0; q.size]), drop_vec, 512, 2048);
    site_bulk_rust_4k BULK_4K "bulk_rust_4k"
        (q: unsafe { alloc(aligned(q.size)) }, dealloc_aligned, 4096, 256);
    site_bulk_rust_32k BULK_32K "bulk_rust_32k" (q: take(Vec::with_capacity(q.size)), drop_vec, 32768, 32);
    site_bulk_rust_256k BULK_256K "bulk_rust_256k"
        (q: unsafe { alloc_zeroed(bytes(q.size)) }, drop_vec, 262144, 4);
}

fn draw(w: *mut Worker, below: usize) -> usize {
    unsafe { ledger_draw(w) as usize % below }
}

fn request(size: usize) -> Request {
    Request { size, count: 1, alignment: 0, old: null_mut(), text: null() }
}

fn plain(w: *mut Worker, index: Index, size: usize) {
    unsafe { ledger_plain(w, &SITES[index as usize], &request(size), size) }
}

fn reallocate(w: *mut Worker, from: Index, size: usize, to: Index, new_size: usize) {
    unsafe {
        let old = ledger_allocate(w, &SITES[from as usize], &request(size), size);
        let q = Request { size: new_size, count: size, old: old.start, ..request(0) };
        ledger_take_over(w, old, &SITES[to as usize], &q, new_size);
    }
}

extern "C" fn round(w: *mut Worker) {
    let size = 8 + draw(w, 2000);
    let large = unsafe { ledger_draw_large(w) };

    plain(w, Index::BOX, BOX_SIZE);
    plain(w, Index::VEC, size);
    plain(w, Index::VEC_ZEROED, size);
    plain(w, Index::VEC_ZEROED, large);
    plain(w, Index::STRING, size);
    plain(w, Index::ZEROED, size);
    plain(w, Index::ALIGNED, size);
    plain(w, Index::ALIGNED_ZEROED, size);
    plain(w, Index::NARROW, 4);
    reallocate(w, Index::VEC_OLD, size, Index::VEC_RESERVE, size * 3);
    reallocate(w, Index::VEC_OLD, size, Index::VEC_RESERVE, large);
    reallocate(w, Index::VEC_OLD, size, Index::VEC_PUSH, size * 2);
    reallocate(w, Index::VEC_OLD, size, Index::VEC_SHRINK, size / 2);
    reallocate(w, Index::VEC_OLD, large, Index::VEC_SHRINK, size);
    reallocate(w, Index::ALIGNED, size, Index::ALIGNED_GROW, size * 2);
}

static RUST: Group = Group { sites: SITES.as_ptr(), site_count: Index::COUNT as usize, prepare: None, round };

fn main() {
    let arguments: Vec<CString> = std::env::args().map(|text| CString::new(text).unwrap()).collect();
    let mut argv: Vec<*const c_char> = arguments.iter().map(|text| text.as_ptr()).collect();

    argv.push(null());
    std::process::exit(unsafe {
        ledger_add(&RUST);
        ledger_main(arguments.len() as c_int, argv.as_ptr())
    });
}
