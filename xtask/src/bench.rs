//! Measures journal and proxy against their baselines.
#[derive(clap::Args)]
pub(crate) struct Arguments {}
pub(crate) fn run(_: &Arguments) -> crate::Outcome {
    Ok(())
}
