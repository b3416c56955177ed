# What `cmake --install` brings: the program, its manual and completion, recipes and job scripts, and a modulefile for it.
include(GNUInstallDirs)

install(TARGETS espalier)
install(FILES README.md CHANGELOG.md LICENSE src/DESIGN.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY configs slurm DESTINATION ${CMAKE_INSTALL_DATADIR}/espalier)
install(FILES launch/site/espalier.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME espalier)
# The place is known only when it is installed (cmake --install --prefix).
configure_file(launch/site/modulefile.in launch/modulefile.in @ONLY)
install(CODE "configure_file(\"${CMAKE_BINARY_DIR}/launch/modulefile.in\" \"${CMAKE_BINARY_DIR}/launch/modulefile\")")
install(FILES ${CMAKE_BINARY_DIR}/launch/modulefile DESTINATION ${CMAKE_INSTALL_DATADIR}/modulefiles/espalier RENAME ${PROJECT_VERSION})

foreach(page espalier.1 espalier-config.5)
  string(REGEX MATCH "[15]$" section ${page})
  install(CODE "execute_process(COMMAND \"${CMAKE_SOURCE_DIR}/launch/site/manual.sh\" \"$<TARGET_FILE:espalier>\" ${section}
                OUTPUT_FILE \"${CMAKE_BINARY_DIR}/launch/${page}\" COMMAND_ERROR_IS_FATAL ANY)")
  install(FILES ${CMAKE_BINARY_DIR}/launch/${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()
