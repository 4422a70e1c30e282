//! Links the library as Node's loader expects it.

fn main() {
    napi_build::setup();
}
