# What Redis sends. By hand: build/fuzz/tests/fuzz/fuzz_resp tests/fuzz/corpus/resp -max_total_time=60
ganglion_fuzz(resp SOURCE fuzz_resp.cpp DEPS net)
# HTTP/1.1 parsers. Run by hand:
#   build/fuzz/tests/fuzz/fuzz_http1_request tests/fuzz/corpus/http1_request -max_total_time=60 -dict=tests/fuzz/http1.dict
foreach(part request response chunk)
  ganglion_fuzz(http1_${part} SOURCE ${CMAKE_CURRENT_LIST_DIR}/fuzz_http1_${part}.cpp DEPS net)
endforeach()
# The session layer over real sockets: a client's bytes to the server's connection, a provider's to the upstream client.
foreach(side server client)
  ganglion_fuzz(http_${side} SOURCE ${CMAKE_CURRENT_LIST_DIR}/fuzz_http_${side}.cpp SOURCES ${CMAKE_CURRENT_LIST_DIR}/session_property.cpp DEPS net)
endforeach()
