//! The fake NVML library, as tests of other crates than its own find it.

use gpulease_fake_nvml::{Device, FakeNvml};

#[test]
fn the_fake_library_was_built_beside_the_tests_of_this_crate() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakeNvml::copy_to(folder.path()).unwrap();
    fake.add_device(Device::new(0)).unwrap();
    assert!(fake.library().is_file() && fake.state_path().is_file());
}
