//! Hooks on what security modules are asked: the return of `security_HOOK`, the hook itself, and the beginning of the
//! function. The three say the same of one happening; a kernel allows one, another, or none of them.

/// Three programs for each hook. Their work is one function, made for typed loads and for probe reads; it is given the
/// arguments of the hook, the kind of hook, and the verdict where that is seen. Behind `; ..` kernels differ in what else
/// there is, and the verdict with it.
macro_rules! hooks {
    ($(
        $(#[doc = $doc:literal])+
        ($fexit:ident, $lsm:ident, $kprobe:ident) at ($function:literal, $hook:literal)
            ($($arg:ident: $ty:ty),+ $(; $more:tt)?) => $report:ident;
    )+) => { $(
        $(#[doc = $doc])+
        #[aya_ebpf::macros::fexit(function = $function)]
        fn $fexit(ctx: aya_ebpf::programs::FExitContext) -> i32 {
            $crate::apart::apart(ctx, |ctx| {
                let mut position = 0;
                $( let $arg: $ty = ctx.arg(position); position += 1; )+
                let verdict = hooks!(@verdict ctx position $($more)?);
                $report::<$crate::mem::Btf>($($arg,)+ haechi_ebpf::program::Step::Fexit, verdict);
            })
        }

        // What it returns is a verdict; the kernel asks no further module once one was not 0.
        $(#[doc = $doc])+
        #[aya_ebpf::macros::lsm(hook = $hook)]
        fn $lsm(ctx: aya_ebpf::programs::LsmContext) -> i32 {
            $crate::apart::apart(ctx, |ctx| {
                let mut position = 0;
                $( let $arg: $ty = ctx.arg(position); position += 1; )+
                let _ = position;
                $report::<$crate::mem::Btf>($($arg,)+ haechi_ebpf::program::Step::Lsm, None);
            })
        }

        $(#[doc = $doc])+
        #[aya_ebpf::macros::kprobe]
        fn $kprobe(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let mut position = 0;
            $(
                let Some($arg) = ctx.arg::<$ty>(position) else { return 0 };
                position += 1;
            )+
            let _ = position;
            $report::<$crate::mem::Probe>($($arg,)+ haechi_ebpf::program::Step::Kprobe, None);
            0
        }
    )+ };
    (@verdict $ctx:ident $position:ident) => {{
        let verdict: i32 = $ctx.arg($position);
        Some(verdict.into())
    }};
    (@verdict $ctx:ident $position:ident ..) => {{
        let _ = $position;
        None
    }};
}
pub(crate) use hooks;
