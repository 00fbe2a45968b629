//! The program of the cloud management suite; see `baetyl_cloud::cli`.

fn main() -> std::process::ExitCode {
    baetyl_cloud::cli::main()
}
