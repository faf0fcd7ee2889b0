from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_platform.registry.domain.manifest import ManifestEntry, manifest_digest

entries = st.lists(
    st.builds(ManifestEntry, st.text(min_size=1, max_size=9), st.sampled_from(["a" * 64, "b" * 64]), st.integers(0, 9)),
    max_size=6,
    unique_by=lambda entry: entry.path,
)


@settings(deadline=None)
@given(entries.flatmap(lambda files: st.tuples(st.just(files), st.permutations(files))))
def test_the_digest_does_not_depend_on_the_order(pair):
    files, shuffled = pair
    assert manifest_digest(shuffled) == manifest_digest(files)


@settings(deadline=None)
@given(entries, entries)
def test_different_manifests_have_different_digests(one, other):
    assert (manifest_digest(one) == manifest_digest(other)) == (set(one) == set(other))
