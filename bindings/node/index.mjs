// The same package for `import`: one instance, whichever way it is loaded.
import cloakroom from './index.js'

export const {
  Cloakroom,
  CloakroomError,
  LogFullError,
  TooLargeError,
  AlreadyExistsError,
  EncodeError,
  InvalidConfigError,
  InvalidArgumentError,
  ClosedError,
  LockedError,
  CorruptedError,
  OutcomeUnknownError,
  PoisonedError,
  StateError,
  newEventId,
} = cloakroom
