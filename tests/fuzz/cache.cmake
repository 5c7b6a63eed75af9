# Cache entries of disk and Redis. By hand: build/fuzz/tests/fuzz/fuzz_cache_entry tests/fuzz/corpus/cache_entry -max_total_time=60
ganglion_fuzz(cache_entry SOURCE fuzz_cache_entry.cpp DEPS cache)
