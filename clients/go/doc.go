// Package herald calls a Herald server: actions that are tried again with the same request
// id, and a feed that resumes.
//
// The generated stubs are in gen/game/v1 and are used as they are; a [Client] is a connection
// on which each call behaves as told in [New].
package herald
