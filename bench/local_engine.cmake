# Speed of the local engine against the host's memory bandwidth; only where the engine is part of the build.
if(TARGET ganglion_local_engine)
  add_executable(bench_local_engine local_engine.cpp)
  target_link_libraries(bench_local_engine PRIVATE ganglion_options ganglion_local_engine)
  target_compile_options(bench_local_engine PRIVATE -O3)
endif()
