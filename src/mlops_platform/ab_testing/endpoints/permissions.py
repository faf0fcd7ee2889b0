"""What callers of this service must be allowed to do."""

from mlops_platform.core.identity import Permission

AB_TESTS_READ = Permission("ab_tests:read")
AB_TESTS_WRITE = Permission("ab_tests:write")
