# What Redis sends. By hand: build/fuzz/tests/fuzz/fuzz_resp tests/fuzz/corpus/resp -max_total_time=60
ganglion_fuzz(resp SOURCE fuzz_resp.cpp DEPS net)
